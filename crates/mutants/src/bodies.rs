//! Replaces the body of a function by a value of its type.

use syn::{GenericArgument, PathArguments, ReturnType, Signature, Type};

use super::{Collector, range};

impl Collector<'_> {
    pub fn change_body(&mut self, signature: &Signature, body: &syn::Block) {
        let values = match &signature.output {
            ReturnType::Default => vec![String::new()],
            ReturnType::Type(_, of) => values(of),
        };
        let place = range(body);
        for value in values {
            let what = match value.as_str() {
                "" => "delete the body".to_owned(),
                value => format!("replace the body by `{value}`"),
            };
            self.add(place.start + 1..place.end - 1, value, what);
        }
    }
}

/// Returns values of a type. None is known for a type of the file itself.
fn values(of: &Type) -> Vec<String> {
    let fixed = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    match of {
        Type::Tuple(tuple) if tuple.elems.is_empty() => fixed(&["()"]),
        Type::Ptr(pointer) if pointer.mutability.is_some() => fixed(&["std::ptr::null_mut()"]),
        Type::Ptr(_) => fixed(&["std::ptr::null()"]),
        Type::Reference(reference) if matches!(*reference.elem, Type::Slice(_)) => {
            match reference.mutability {
                Some(_) => fixed(&["&mut []", "vec![0].leak()"]),
                None => fixed(&["&[]", "vec![0].leak()"]),
            }
        }
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else {
                return Vec::new();
            };
            let inner = first_argument(&last.arguments).map_or(Vec::new(), values);
            let wrapped = |with: &str| -> Vec<String> {
                inner
                    .iter()
                    .map(|value| format!("{with}({value})"))
                    .collect()
            };
            match last.ident.to_string().as_str() {
                "bool" => fixed(&["true", "false"]),
                "u8" | "u16" | "u32" | "u64" | "usize" => fixed(&["0", "1"]),
                "i8" | "i16" | "i32" | "i64" | "isize" => fixed(&["0", "1", "-1"]),
                "Result" => wrapped("Ok"),
                "Option" => [fixed(&["None"]), wrapped("Some")].concat(),
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

fn first_argument(arguments: &PathArguments) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(of) => Some(of),
        _ => None,
    })
}
