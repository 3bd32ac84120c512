//! Projects that would act on each other's tasks, gate and keys: both are broken until one gives way.

use super::{ConfigFault, ProjectLoad};
use crate::validate::{self, Finding, Places};
use crate::yaml::{self, Document, Step};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use terok_proto::config::{ProblemCode, Scope, Severity};
use terok_proto::error::printable_text;

/// Marks every project whose id another directory claims, by its name or in its file. The input is what was
/// loaded; keep it, so that a project recovers when the other one gives way.
pub fn mark_conflicts(loads: &[ProjectLoad]) -> Vec<ProjectLoad> {
    let mut claimants: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (index, load) in loads.iter().enumerate() {
        claimants.entry(&load.id).or_default().insert(index);
        claimants.entry(&load.dir_name).or_default().insert(index);
    }
    let mut rivals: BTreeMap<usize, (String, BTreeSet<usize>)> = BTreeMap::new();
    for (id, indexes) in &claimants {
        if indexes.len() < 2 {
            continue;
        }
        for index in indexes {
            let others = indexes.iter().filter(|other| *other != index);
            let entry = rivals
                .entry(*index)
                .or_insert_with(|| ((*id).to_owned(), BTreeSet::new()));
            entry.1.extend(others);
        }
    }
    loads
        .iter()
        .enumerate()
        .map(|(index, load)| match rivals.get(&index) {
            Some((id, others)) => {
                let others: Vec<String> = others
                    .iter()
                    .map(|other| format!("`{}`", loads[*other].yml_path.display()))
                    .collect();
                conflicting(load, id, &others)
            }
            None => load.clone(),
        })
        .collect()
}

fn conflicting(load: &ProjectLoad, id: &str, others: &[String]) -> ProjectLoad {
    let path = load.yml_path.to_string_lossy();
    let message = format!(
        "project `{}`: the id `{id}` is also claimed by {}; give each project its own id, equal to the name of its directory",
        load.dir_name,
        others.join(", ")
    );
    let finding = Finding::error(
        &[Step::from("project"), Step::from("id")],
        ProblemCode::Conflict,
        &message,
    );
    // Conflicts are rare: reading the file again for the place costs less than keeping every file's structure.
    let document = match &load.outcome {
        Ok(_) => yaml::read_file(&load.yml_path).ok(),
        Err(_) => None,
    };
    let document = document.unwrap_or_else(|| Document::from_value(Value::Null));
    let places = Places::one(Some(&path), &document);
    let mut problem = validate::problem(Scope::Project, finding, &places);
    problem.path = Some(path.clone().into_owned());
    problem.project_id = Some(load.dir_name.to_string());
    let mut problems = vec![problem];
    let mut text = printable_text(&message);
    match &load.outcome {
        Ok(project) => problems.extend(
            project
                .warnings
                .iter()
                .filter(|warning| {
                    warning.severity != Severity::Warning || warning.code != ProblemCode::Conflict
                })
                .cloned(),
        ),
        Err(fault) => {
            problems.extend(fault.problems.iter().cloned());
            text = format!("{}\n{text}", fault.text);
        }
    }
    ProjectLoad {
        outcome: Err(Arc::new(ConfigFault {
            path: path.into_owned(),
            text,
            problems,
        })),
        ..load.clone()
    }
}
