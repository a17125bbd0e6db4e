//! A recording of what a kernel did to a mapping: an element that replays it, with a table of all steps.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::html::{escape, inline};
use super::{Fence, check_name};

/// A recording, as the lab's program `record` writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trace {
    name: String,
    mapping: Mapping,
    pages: usize,
    recorded_on: Recorded,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mapping {
    Private,
    Shared,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    kernel: String,
    machine: String,
    page_size: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the page's script reads the other fields")]
struct Step {
    process: String,
    op: String,
    first: usize,
    count: usize,
    says: String,
    value: Option<u8>,
    faults: Option<u64>,
    /// For each process, bits 63 and 56 of each page's pagemap entry.
    bits: BTreeMap<String, String>,
    /// For each process, one letter for each page.
    states: BTreeMap<String, String>,
}

pub fn html(folder: &Path, fence: &Fence) -> Result<String> {
    let name = fence.argument;
    check_name(name)?;
    let caption = fence.lines.join(" ");
    let caption = caption.trim();
    ensure!(
        !caption.is_empty(),
        "the trace {name} has no caption; write it between the fences"
    );
    let path = folder.join(format!("{name}.json"));
    ensure!(
        path.is_file(),
        "there is no trace {name:?}; record it: cargo run -q -p lab -- {name} > book/src/traces/{name}.json"
    );
    let text = fs::read_to_string(&path)?;
    let trace: Trace = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    ensure!(
        trace.name == name,
        "{} contains the trace {}",
        path.display(),
        trace.name
    );
    // Parsing and printing it again removes the white space.
    let value: serde_json::Value = serde_json::from_str(&text)?;
    Ok(format!(
        "<vm-lab data-trace=\"{}\">\n\
         <p class=\"wb-ask\">{}</p>\n\
         {}</vm-lab>",
        escape(&value.to_string()),
        inline(caption),
        table(&trace)?
    ))
}

fn table(trace: &Trace) -> Result<String> {
    let mut processes: Vec<&str> = Vec::new();
    for process in trace.steps.iter().flat_map(|step| step.states.keys()) {
        if !processes.contains(&process.as_str()) {
            processes.push(process);
        }
    }
    let mut table = String::from(
        "<div class=\"table-wrapper\" tabindex=\"0\" role=\"region\" aria-label=\"The steps\">\
         <table><thead><tr><th>Step</th>",
    );
    for process in &processes {
        write!(table, "<th>{}'s pages</th>", capital(process))?;
    }
    table += "<th>Faults</th></tr></thead>\n<tbody>\n";
    for step in &trace.steps {
        let value = step
            .value
            .map_or(String::new(), |value| format!(" It reads {value}."));
        write!(table, "<tr><td>{}{value}</td>", escape(&step.says))?;
        for process in &processes {
            let states = step.states.get(*process);
            let states = states.map(|states| format!("<code>{}</code>", escape(states)));
            write!(table, "<td>{}</td>", states.unwrap_or_default())?;
        }
        let faults = step
            .faults
            .map_or("–".to_owned(), |faults| faults.to_string());
        writeln!(table, "<td>{faults}</td></tr>")?;
    }
    table += "</tbody></table></div>\n";
    let mapping = match trace.mapping {
        Mapping::Private => "private",
        Mapping::Shared => "shared",
    };
    let Recorded {
        kernel,
        machine,
        page_size,
    } = &trace.recorded_on;
    writeln!(
        table,
        "<p><small>One letter for each of the {} pages of a {mapping} mapping: <code>.</code> untouched, \
         <code>0</code> zero page, <code>r</code> resident, <code>f</code> shared after fork, \
         <code>c</code> copied, <code>s</code> shared. Recorded on Linux {}, {}, pages of {page_size} bytes.</small></p>",
        trace.pages,
        escape(kernel),
        escape(machine),
    )?;
    Ok(table)
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
