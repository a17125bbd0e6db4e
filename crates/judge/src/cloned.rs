//! Clones a value whose type may not be `Clone`. `clone_if_possible!` uses it.

use std::marker::PhantomData;

/// `Cloned::<T>::copy_of` clones a value if `T` is `Clone`: an inherent function takes precedence over a trait's.
pub struct Cloned<T>(PhantomData<T>);

impl<T: Clone> Cloned<T> {
    pub fn copy_of(original: &T) -> Option<T> {
        Some(original.clone())
    }
}

pub trait NotCloned<T> {
    fn copy_of(_: &T) -> Option<T> {
        None
    }
}

impl<T> NotCloned<T> for Cloned<T> {}

/// A clone of the value behind a reference, or `None` if its type is not `Clone`. The type must not be generic here.
#[macro_export]
macro_rules! clone_if_possible {
    ($type:ty, $original:expr) => {{
        #[allow(unused_imports)] // Unused if the type is `Clone`.
        use $crate::cloned::NotCloned as _;
        $crate::cloned::Cloned::<$type>::copy_of($original)
    }};
}

#[cfg(test)]
mod tests {
    struct Unique;

    #[test]
    fn only_a_type_that_is_clone_is_cloned() {
        assert_eq!(clone_if_possible!(u8, &7), Some(7));
        assert!(clone_if_possible!(Unique, &Unique).is_none());
    }
}
