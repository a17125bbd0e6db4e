//! Records the named trace on this machine and prints it as JSON. Without a name, lists the traces.

use std::process::ExitCode;

use lab::trace;

fn main() -> ExitCode {
    let names = || trace::SCENARIOS.iter().map(|scenario| scenario.name);
    let Some(wanted) = std::env::args().nth(1) else {
        names().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let mut scenarios = trace::SCENARIOS.iter();
    let Some(scenario) = scenarios.find(|scenario| scenario.name == wanted) else {
        let names: Vec<_> = names().collect();
        eprintln!(
            "unknown trace {wanted:?}. The traces are: {}",
            names.join(", ")
        );
        return ExitCode::FAILURE;
    };
    print!("{}", trace::record(scenario));
    ExitCode::SUCCESS
}
