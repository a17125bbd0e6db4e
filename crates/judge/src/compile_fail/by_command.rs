//! The results of cases that the `workbook` command has compiled. It calls rustc once, where trybuild calls cargo five
//! times.

use std::collections::BTreeMap;
use std::env;

use super::CompileResult;

/// Set by the command: a line for each case, such as `views::two_writers rejected`. A case without a line is compiled here.
const COMPILED: &str = "JUDGE_COMPILED";

/// Returns the results of the stage's cases that the command has compiled, by name.
pub fn results(stage: &str) -> BTreeMap<String, CompileResult> {
    parse(stage, &env::var(COMPILED).unwrap_or_default())
}

fn parse(stage: &str, compiled: &str) -> BTreeMap<String, CompileResult> {
    let results = compiled.lines().filter_map(|line| {
        let (case, result) = line.split_once(' ')?;
        let (of, name) = case.split_once("::")?;
        let result = match result {
            "rejected" => CompileResult::Rejected,
            "accepted" => CompileResult::Accepted,
            "other" => CompileResult::OtherReason,
            _ => return None,
        };
        (of == stage).then(|| (name.to_owned(), result))
    });
    results.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clear_results_of_the_stage_are_used() {
        let compiled = "views::a rejected\nviews::b accepted\nviews::c unclear\nviews::d other\nother::d rejected\nnoise\n";
        let results = parse("views", compiled);
        assert_eq!(results.len(), 3);
        assert_eq!(results["a"], CompileResult::Rejected);
        assert_eq!(results["b"], CompileResult::Accepted);
        assert_eq!(results["d"], CompileResult::OtherReason);
    }
}
