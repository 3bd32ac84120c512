//! Gates: sync, what waits for a human, review and promotion (gate.md §2.6).

use super::project::texts;
use crate::args::Values;
use crate::dialog::Dialog;
use crate::failure::{Failure, REFUSED, Result};
use crate::operation;
use crate::render::{Column, Screen, Show, View};
use crate::session::Session;
use serde_json::{Value, json};
use terok_proto::gate::{
    ApplyPendingResult, ConfirmedOp, GateStalenessInfo, GateSyncResult, MovedBranch, PendingOp,
    Relation,
};
use terok_proto::{Fault, Kind, methods as m};

const SYNC: &str = "project.gate.sync";
const APPLY: &str = "project.gate.apply_pending";
/// Digits of a commit that a human needs to see.
const SHORT: usize = 12;

/// Columns of `gate pending`.
pub(super) const PENDING: &[Column] = &[
    Column::new("BRANCH", "/branch"),
    Column::new("WOULD", "/kind").show(Show::With(words)),
    Column::new("BECAUSE", "/reason").show(Show::With(words)),
    Column::new("GATE", "/gate_sha").show(Show::With(short)),
    Column::new("UPSTREAM", "/upstream_sha").show(Show::With(short)),
    Column::new("ONLY IN GATE", "/gate_only_commits"),
    super::mark("LOSSLESS", "/lossless"),
];

/// Columns of `gate backups`.
pub(super) const BACKUPS: &[Column] = &[
    Column::new("BRANCH", "/branch"),
    Column::new("COMMIT", "/commit").show(Show::With(short)),
    Column::new("AT", "/at"),
    Column::new("BECAUSE", "/reason").show(Show::With(words)),
    Column::new("REF", "/ref"),
];

/// Columns of `gate poll`.
pub(super) const STALENESS: &[Column] = &[
    Column::new("BRANCH", "/branch"),
    Column::new("STATE", "").show(Show::With(state_of)),
    Column::new("GATE", "/gate_head").show(Show::With(short)),
    Column::new("UPSTREAM", "/upstream_head").show(Show::With(short)),
    Column::new("CHECKED", "/last_checked"),
];

/// Columns of `gate polling`.
pub(super) const POLLING: &[Column] = &[
    Column::new("PROJECTS", "/project_ids"),
    Column::new("HOST", "/host"),
    Column::new("STATE", "/staleness").show(Show::With(state_of)),
    Column::new("EVERY", "/interval_seconds").show(Show::With(seconds)),
    Column::new("LAST", "/last_poll_at"),
    Column::new("NEXT", "/next_poll_at"),
    super::mark("AUTO-SYNC", "/auto_sync/enabled"),
    Column::new("FAILURES", "/consecutive_failures"),
    Column::new("PROBLEM", "/last_error"),
];

/// The first digits of a commit.
fn short(commit: &Value) -> String {
    let commit = commit.as_str().unwrap_or_default();
    commit.chars().take(SHORT).collect()
}

/// A name of the wire as words.
fn words(name: &Value) -> String {
    name.as_str().unwrap_or_default().replace('_', " ")
}

fn seconds(number: &Value) -> String {
    number.as_u64().map_or(String::new(), |n| format!("{n} s"))
}

fn state_of(staleness: &Value) -> String {
    serde_json::from_value(staleness.clone()).map_or(String::new(), |info| state(&info))
}

/// How current a branch is, in a few words (gate.md §2.4).
fn state(info: &GateStalenessInfo) -> String {
    if let Some(error) = &info.error {
        return error.clone();
    }
    if !info.is_stale {
        return "up to date".to_owned();
    }
    let count = |number: Option<u64>| number.map_or("unknown".to_owned(), |n| n.to_string());
    let (ahead, behind) = (count(info.commits_ahead), count(info.commits_behind));
    match (info.commits_ahead, info.commits_behind, info.relation) {
        (Some(1..), Some(0), _) | (None, _, Relation::Ahead) => format!("ahead ({ahead})"),
        (Some(1..), Some(1..), _) | (None, _, Relation::Diverged) => {
            format!("diverged ({ahead} ahead, {behind} behind)")
        }
        _ => format!("behind ({behind})"),
    }
}

/// What `gate compare` prints.
pub(super) fn show_staleness(screen: &mut Screen, value: &Value) -> Result<()> {
    let branch = value["branch"].as_str();
    let state = state_of(value);
    screen.line(&branch.map_or(state.clone(), |branch| format!("{branch}: {state}")))?;
    if screen.is_terminal() {
        for (label, name) in [("gate", "gate_head"), ("upstream", "upstream_head")] {
            if let Some(head) = value[name].as_str() {
                screen.line(&format!("  {label:<9}{head}"))?;
            }
        }
    }
    Ok(())
}

/// What `gate status` prints.
pub(super) fn show_status(screen: &mut Screen, value: &Value) -> Result<()> {
    let mut rest = value.clone();
    if screen.is_terminal() && value["staleness"].is_object() {
        rest["staleness"] = state_of(&value["staleness"]).into();
    }
    screen.record(&rest)
}

/// What `gate path` prints.
pub(super) fn show_path(screen: &mut Screen, value: &Value) -> Result<()> {
    screen.line(value["path"].as_str().unwrap_or_default())
}

/// Brings a gate up to date.
pub(super) fn sync(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let params = values.params();
    if session.options.no_wait {
        return session.call_and_show(SYNC, params, &View::Nothing);
    }
    let params = Value::Object(params).to_string();
    let answer = run_sync(session, values.required("ID"), &params)?;
    if session.is_wire() {
        session.show(&answer, &View::Nothing)?;
    }
    let result = session.read(SYNC, &answer)?;
    tell_sync(session, values.required("ID"), &result)
}

/// Runs a sync; what can be done where upstream cannot be asked is told here, because only the command line has it.
pub(super) fn run_sync(session: &mut Session, id: &str, params: &str) -> Result<String> {
    match operation::run(session, SYNC, params) {
        Err(failure) if failure.is(Kind::GateAuthNotConfigured) && !session.options.json => {
            session.complain(&failure);
            if !session.options.quiet {
                for remedy in remedies(&failure, id) {
                    session.screen.hint(&remedy);
                }
            }
            Err(Failure::Told(REFUSED))
        }
        outcome => outcome,
    }
}

/// What helps a project without a usable key.
fn remedies(failure: &Failure, id: &str) -> [String; 2] {
    let reason = failure.data("reason").and_then(Value::as_str);
    let vault = match reason {
        None | Some("no_key") => format!("make a key with `terokctl project ssh-init {id}`"),
        Some(_) => format!(
            "unlock the vault with `terokctl vault unlock`; a project without a key gets one with `terokctl project ssh-init {id}`"
        ),
    };
    [
        vault,
        format!("or use your own SSH keys: `terokctl gate sync {id} --use-personal-ssh`"),
    ]
}

/// Tells what a sync did; one that failed ends the command.
pub(super) fn tell_sync(session: &mut Session, id: &str, result: &GateSyncResult) -> Result<()> {
    if !result.success {
        if !session.options.json {
            let errors = result.errors.join("; ");
            session.screen.note(&format!("Gate sync failed: {errors}"));
        }
        return Err(Failure::Told(REFUSED));
    }
    if session.is_wire() {
        return Ok(());
    }
    session.screen.line(&sync_line(result))?;
    session.screen.finish()?;
    for update in &result.applied {
        let old = update.old.as_deref().map_or("new", brief);
        session.note(&format!(
            "  {}: {old} -> {}",
            update.branch,
            brief(&update.new)
        ));
    }
    for note in &result.notes {
        session.note(note);
    }
    if !result.pending.is_empty() {
        let branches: Vec<&str> = result.pending.iter().map(|p| p.branch.as_str()).collect();
        session.screen.warning(&format!(
            "upstream rewrote or deleted {}; nothing was changed there",
            branches.join(", ")
        ));
        session.hint(&format!(
            "look with `terokctl gate pending {id}`, agree with `terokctl gate apply {id} BRANCH...`"
        ));
    }
    Ok(())
}

/// The line that a sync is worth.
fn sync_line(result: &GateSyncResult) -> String {
    let upstream = result.upstream_url.as_deref();
    let created = if result.created { "yes" } else { "no" };
    let cache = match (&result.cache_error, result.cache_refreshed) {
        (Some(error), _) => format!("; clone cache not refreshed: {error}"),
        (None, true) => "; clone cache refreshed".to_owned(),
        (None, false) => String::new(),
    };
    let migrated = if result.migrated { "; migrated" } else { "" };
    format!(
        "Gate ready at {} (upstream: {}; created: {created}{migrated}{cache})",
        result.path,
        upstream.unwrap_or("(none — local-only bare repo)"),
    )
}

fn brief(commit: &str) -> &str {
    commit.get(..SHORT).unwrap_or(commit)
}

/// Applies what upstream did to branches, after showing it.
pub(super) fn apply(session: &mut Session, values: &Values<'_>) -> Result<()> {
    let id = values.required("ID").to_owned();
    let pending = session.ask(&m::ProjectGatePending {
        project_id: id.clone(),
    })?;
    let mut chosen: Vec<&PendingOp> = Vec::new();
    for branch in values.many("BRANCH") {
        let found = pending.iter().find(|op| op.branch == branch);
        let op = found.ok_or_else(|| {
            let fault = Fault::new(
                Kind::InvalidArgument,
                format!("nothing is pending for `{branch}`"),
            );
            Failure::refusal(&fault.hint(format!("`terokctl gate pending {id}` lists what is")))
        })?;
        if !chosen.iter().any(|op| op.branch == branch) {
            chosen.push(op);
        }
    }
    if !values.flag("yes") {
        let mut dialog = Dialog::new(session.interrupts.clone());
        for op in &chosen {
            dialog.say(&pending_line(op));
        }
        if !dialog.confirm("Change the gate? Every old head is kept as a backup.")? {
            session.note("Cancelled; nothing was changed.");
            return Ok(());
        }
    }
    // What was shown is what is agreed to, even if the branch has moved since.
    let ops: Vec<ConfirmedOp> = chosen
        .into_iter()
        .map(|op| ConfirmedOp {
            branch: op.branch.clone(),
            gate_sha: op.gate_sha.clone(),
        })
        .collect();
    let params = json!({"project_id": id, "ops": ops}).to_string();
    let answer = session.call(APPLY, &params)?;
    session.show(&answer, &View::Custom(show_applied))?;
    let result: ApplyPendingResult = session.read(APPLY, &answer)?;
    if result.refused.is_empty() {
        return Ok(());
    }
    session.screen.finish()?;
    if !session.options.json {
        for refused in &result.refused {
            session
                .screen
                .error(&format!("{}: {}", refused.branch, refused.message));
        }
    }
    Err(Failure::Told(REFUSED))
}

/// What would become of a branch.
fn pending_line(op: &PendingOp) -> String {
    let would = match &op.upstream_sha {
        Some(upstream) => format!("{} -> {}", brief(&op.gate_sha), brief(upstream)),
        None => format!("{} would be deleted", brief(&op.gate_sha)),
    };
    let loses = match (op.lossless, op.gate_only_commits) {
        (true, _) => "nothing is lost".to_owned(),
        (false, Some(n)) => format!("takes {n} commits out of the branch that only the gate has"),
        (false, None) => "takes commits out of the branch that only the gate has".to_owned(),
    };
    let reason = words(&json!(op.reason));
    format!("  {}: {would} ({reason}; {loses})", op.branch)
}

fn show_applied(screen: &mut Screen, value: &Value) -> Result<()> {
    let applied = value["applied"].as_array().map_or(&[][..], Vec::as_slice);
    applied
        .iter()
        .try_for_each(|moved| show_moved(screen, moved))
}

/// A branch that was moved on request.
pub(super) fn show_moved(screen: &mut Screen, value: &Value) -> Result<()> {
    let Ok(moved) = serde_json::from_value::<MovedBranch>(value.clone()) else {
        return screen.record(value);
    };
    let old = moved.old.as_deref().map_or("new", brief);
    let new = moved.new.as_deref().map_or("deleted", brief);
    let kept = moved
        .backup_ref
        .map_or(String::new(), |kept| format!(" (kept as {kept})"));
    screen.line(&format!("{}: {old} -> {new}{kept}", moved.branch))
}

/// Backups that were removed.
pub(super) fn show_pruned(screen: &mut Screen, value: &Value) -> Result<()> {
    texts(&value["pruned"]).try_for_each(|name| screen.line(name))
}

/// A branch that was pushed upstream.
pub(super) fn show_promoted(screen: &mut Screen, value: &Value) -> Result<()> {
    let text = |name: &str| value[name].as_str();
    screen.line(&format!(
        "{}: {} -> {}",
        text("branch").unwrap_or_default(),
        text("old").map_or("new", brief),
        text("new").map_or("", brief),
    ))
}

/// What the gate holds that upstream does not: branches, and for a human their commits.
pub(super) fn show_review(screen: &mut Screen, value: &Value) -> Result<()> {
    const ROWS: &[Column] = &[
        Column::new("BRANCH", "/branch"),
        Column::new("AHEAD", "/ahead"),
        Column::new("BEHIND", "/behind"),
        Column::new("FILES", "/files_changed"),
        Column::new("ADDED", "/insertions"),
        Column::new("REMOVED", "/deletions"),
        Column::new("HEAD", "/commits/0/commit_hash"),
    ];
    const COMMITS: &[Column] = &[
        Column::new("COMMIT", "/commit_hash").show(Show::With(short)),
        Column::new("DATE", "/commit_date"),
        Column::new("AUTHOR", "/commit_author"),
        Column::new("SUBJECT", "/commit_message"),
    ];
    let rows = value.as_array().map_or(&[][..], Vec::as_slice);
    if !screen.is_terminal() {
        return screen.table(ROWS, rows);
    }
    if rows.is_empty() {
        return screen.line("upstream has everything that the gate has");
    }
    for row in rows {
        let number = |name: &str| row[name].as_u64().unwrap_or_default();
        screen.heading(&format!(
            "{}: {} ahead, {} behind; {} changed, +{} -{}",
            crate::render::plain(&row["branch"]),
            number("ahead"),
            number("behind"),
            match number("files_changed") {
                1 => "1 file".to_owned(),
                n => format!("{n} files"),
            },
            number("insertions"),
            number("deletions"),
        ))?;
        let commits = row["commits"].as_array().map_or(&[][..], Vec::as_slice);
        screen.table(COMMITS, commits)?;
        let more = number("ahead").saturating_sub(commits.len() as u64);
        if more > 0 {
            screen.line(&format!("and {more} more"))?;
        }
        screen.line("")?;
    }
    if let Some(row) = rows.iter().find(|row| row["stale"] == json!(true)) {
        screen.note(&format!(
            "upstream could not be asked; compared with what was fetched {}",
            row["snapshot_at"].as_str().unwrap_or("last")
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(change: Value) -> Value {
        let mut info = json!({
            "branch": "main", "gate_head": "a".repeat(40), "upstream_head": "b".repeat(40), "is_stale": true,
            "commits_behind": null, "commits_ahead": null, "last_checked": "2026-03-01T12:00:00Z", "error": null,
            "error_kind": null, "relation": "unknown",
        });
        for (name, value) in change.as_object().expect("an object") {
            info[name] = value.clone();
        }
        info
    }

    #[test]
    fn a_comparison_is_told_in_a_few_words() {
        for (change, shown) in [
            (
                json!({"is_stale": false, "commits_behind": 0, "commits_ahead": 0, "relation": "equal"}),
                "main: up to date\n",
            ),
            (
                json!({"commits_behind": 0, "commits_ahead": 2, "relation": "ahead"}),
                "main: ahead (2)\n",
            ),
            (
                json!({"commits_behind": 3, "commits_ahead": 2, "relation": "diverged"}),
                "main: diverged (2 ahead, 3 behind)\n",
            ),
            (
                json!({"commits_behind": 3, "commits_ahead": 0, "relation": "behind"}),
                "main: behind (3)\n",
            ),
            (json!({}), "main: behind (unknown)\n"),
            (
                json!({"relation": "diverged"}),
                "main: diverged (unknown ahead, unknown behind)\n",
            ),
            (
                json!({"is_stale": false, "error": "Could not reach upstream"}),
                "main: Could not reach upstream\n",
            ),
            (
                json!({"is_stale": false, "branch": null, "error": "No branch configured"}),
                "No branch configured\n",
            ),
        ] {
            let mut screen = Screen::memory(false);
            show_staleness(&mut screen, &info(change)).expect("memory");
            assert_eq!(screen.text(), shown);
        }
    }

    #[test]
    fn a_sync_is_one_line() {
        let result = GateSyncResult {
            path: "/g/orion.git".into(),
            success: true,
            created: true,
            cache_refreshed: true,
            ..GateSyncResult::default()
        };
        assert_eq!(
            sync_line(&result),
            "Gate ready at /g/orion.git (upstream: (none — local-only bare repo); created: yes; clone cache refreshed)"
        );
        let again = GateSyncResult {
            created: false,
            upstream_url: Some("git@github.com:o/r.git".into()),
            cache_error: Some("disk full".into()),
            ..result
        };
        assert_eq!(
            sync_line(&again),
            "Gate ready at /g/orion.git (upstream: git@github.com:o/r.git; created: no; clone cache not refreshed: disk full)"
        );
    }

    #[test]
    fn pending_changes_say_what_is_lost() {
        let mut op: PendingOp = serde_json::from_value(json!({
            "branch": "dev", "kind": "delete", "reason": "upstream_delete", "gate_sha": "a".repeat(40),
            "upstream_sha": null, "old_snapshot_sha": null, "lossless": true, "gate_only_commits": 0,
        }))
        .expect("an operation");
        assert_eq!(
            pending_line(&op),
            "  dev: aaaaaaaaaaaa would be deleted (upstream delete; nothing is lost)"
        );
        op.upstream_sha = Some("b".repeat(40));
        op.lossless = false;
        op.gate_only_commits = Some(2);
        assert_eq!(
            pending_line(&op),
            "  dev: aaaaaaaaaaaa -> bbbbbbbbbbbb (upstream delete; takes 2 commits out of the branch that only the gate has)"
        );
    }

    #[test]
    fn a_review_shows_commits_to_humans_and_rows_to_programs() {
        let value = json!([{
            "branch": "agent/fix\u{1b}", "ahead": 2, "behind": 0, "files_changed": 1, "insertions": 3, "deletions": 1,
            "commits": [{"commit_hash": "c".repeat(40), "commit_date": "2026-03-01 12:00:00 +0000", "commit_author": "Ada", "commit_message": "fix\u{1b}[2J"}],
        }]);
        let mut screen = Screen::memory(true);
        show_review(&mut screen, &value).expect("memory");
        insta::assert_snapshot!(screen.text(), @r"
        agent/fix\x1b: 2 ahead, 0 behind; 1 file changed, +3 -1
        COMMIT        DATE                       AUTHOR  SUBJECT
        cccccccccccc  2026-03-01 12:00:00 +0000  Ada     fix\x1b[2J
        and 1 more
        ");
        let mut screen = Screen::memory(false);
        show_review(&mut screen, &value).expect("memory");
        assert_eq!(
            screen.text(),
            format!("agent/fix\\x1b\t2\t0\t1\t3\t1\t{}\n", "c".repeat(40))
        );
    }
}
