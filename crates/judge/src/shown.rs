//! Formats a value whose type may be neither `Debug` nor `Display`. `shown_if_possible!` uses it.

use std::fmt::{Debug, Display};
use std::marker::PhantomData;

/// `Debugged::<T>::text_of` formats a value if `T` is `Debug`: an inherent function takes precedence over a trait's.
pub struct Debugged<T>(PhantomData<T>);

impl<T: Debug> Debugged<T> {
    pub fn text_of(value: &T) -> Option<String> {
        Some(format!("{value:?}"))
    }
}

/// As `Debugged`, for `Display`.
pub struct Displayed<T>(PhantomData<T>);

impl<T: Display> Displayed<T> {
    pub fn text_of(value: &T) -> Option<String> {
        Some(format!("{value}"))
    }
}

pub trait NotShown<T> {
    fn text_of(_: &T) -> Option<String> {
        None
    }
}

impl<T> NotShown<T> for Debugged<T> {}
impl<T> NotShown<T> for Displayed<T> {}

/// What `Debug` and `Display` make of the value behind a reference, each `None` if its type does not implement the trait.
/// The type must not be generic here.
#[macro_export]
macro_rules! shown_if_possible {
    ($type:ty, $value:expr) => {{
        #[allow(unused_imports)] // Unused if the type implements both.
        use $crate::shown::NotShown as _;
        let value: &$type = $value;
        [
            $crate::shown::Debugged::<$type>::text_of(value),
            $crate::shown::Displayed::<$type>::text_of(value),
        ]
    }};
}

#[cfg(test)]
mod tests {
    #[derive(Debug)]
    struct OnlyDebug;

    struct Neither;

    #[test]
    fn only_a_type_that_can_be_formatted_is() {
        let seven = Some("7".to_owned());
        assert_eq!(shown_if_possible!(u8, &7), [seven.clone(), seven]);
        let shown = shown_if_possible!(OnlyDebug, &OnlyDebug);
        assert_eq!(shown, [Some("OnlyDebug".to_owned()), None]);
        assert_eq!(shown_if_possible!(Neither, &Neither), [None, None]);
    }
}
