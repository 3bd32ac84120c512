//! What Podman says while it builds: JSON lines around the text that a terminal would have seen.

use crate::fault;
use crate::value;
use serde_json::Value;
use std::collections::VecDeque;
use terok_proto::error::printable_line;
use terok_proto::{Fault, Kind};

/// Lines that a failed build shows.
const TAIL: usize = 20;
/// Bytes of a line of text that are kept; programs draw their progress in endless ones.
const TEXT: usize = 8 << 10;

/// Something that a build reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildItem {
    /// A step begins.
    Step {
        /// From 1.
        number: u32,
        /// How many there are in this stage.
        total: u32,
        /// The instruction as Podman understood it.
        instruction: String,
    },
    /// One printable line.
    Log(String),
    /// The image is there.
    Done(Built),
}

/// The image that a build made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// 64 hex digits.
    pub image_id: String,
    /// Whether every step came from the cache, so that the image is not new.
    pub cached: bool,
}

/// Decodes the answer to a build.
#[derive(Debug)]
pub(super) struct Output {
    limit: usize,
    /// The unfinished JSON line.
    line: Vec<u8>,
    /// How much of `line` holds no line break.
    searched: usize,
    /// The unfinished line of text.
    text: String,
    tail: VecDeque<String>,
    step: Option<String>,
    steps: u32,
    cached: u32,
    last: String,
    fault: Option<Fault>,
}

impl Output {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            searched: 0,
            text: String::new(),
            tail: VecDeque::new(),
            step: None,
            steps: 0,
            cached: 0,
            last: String::new(),
            fault: None,
        }
    }

    /// Takes a piece of the answer; true when the build is over.
    pub(super) fn feed(
        &mut self,
        piece: &[u8],
        out: &mut VecDeque<BuildItem>,
    ) -> Result<bool, Fault> {
        self.line.extend_from_slice(piece);
        let mut start = 0;
        while let Some(offset) = self.line[self.searched..].iter().position(|b| *b == b'\n') {
            let end = self.searched + offset;
            let line = self.line[start..end].to_vec();
            start = end + 1;
            self.searched = start;
            self.json(&line, out)?;
        }
        self.line.drain(..start);
        self.searched = self.line.len();
        if self.line.len() > self.limit {
            return Err(fault::nonsense(
                "a build",
                format!("a line is longer than {} bytes", self.limit),
            ));
        }
        Ok(false)
    }

    /// The answer has ended.
    pub(super) fn end(&mut self, out: &mut VecDeque<BuildItem>) -> Result<bool, Fault> {
        let rest = std::mem::take(&mut self.line);
        self.json(&rest, out)?;
        self.flush(out);
        if value::is_id(&self.last) {
            let image_id = std::mem::take(&mut self.last);
            let cached = self.steps > 0 && self.cached == self.steps;
            out.push_back(BuildItem::Done(Built { image_id, cached }));
            return Ok(true);
        }
        Err(self.failed("podman ended the build without an image"))
    }

    /// Keeps a failure until what came before it has been read.
    pub(super) fn bury(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    pub(super) fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    fn json(&mut self, line: &[u8], out: &mut VecDeque<BuildItem>) -> Result<(), Fault> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let value: Value =
            serde_json::from_slice(line).map_err(|error| fault::nonsense("a build", error))?;
        self.text(value::text(&value, "stream"), out);
        let detail = value
            .get("errorDetail")
            .map_or("", |detail| value::text(detail, "message"));
        let error = Some(value::text(&value, "error"))
            .filter(|text| !text.is_empty())
            .unwrap_or(detail);
        if error.is_empty() {
            return Ok(());
        }
        self.flush(out);
        Err(self.failed(error))
    }

    fn text(&mut self, text: &str, out: &mut VecDeque<BuildItem>) {
        for part in text.split_inclusive(['\n', '\r']) {
            let line = part.trim_end_matches(['\n', '\r']);
            let room = TEXT.saturating_sub(self.text.len());
            self.text.push_str(fault::cut(line, room));
            if line.len() < part.len() {
                self.flush(out);
            }
        }
    }

    fn flush(&mut self, out: &mut VecDeque<BuildItem>) {
        let line = printable_line(std::mem::take(&mut self.text).trim_end());
        if line.is_empty() {
            return;
        }
        self.last.clone_from(&line);
        if line.starts_with("--> Using cache ") {
            self.cached += 1;
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.clone());
        match step(&line) {
            Some((number, total, instruction)) => {
                if !instruction
                    .get(..5)
                    .is_some_and(|word| word.eq_ignore_ascii_case("FROM "))
                {
                    self.steps += 1;
                }
                self.step = Some(line.clone());
                out.push_back(BuildItem::Step {
                    number,
                    total,
                    instruction: instruction.to_owned(),
                });
            }
            None => out.push_back(BuildItem::Log(line)),
        }
    }

    fn failed(&self, message: &str) -> Fault {
        let message = message.trim();
        let mut fault = Fault::new(Kind::BuildFailed, fault::cut(message, 2048)).with(
            "lines",
            self.tail.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        if let Some(step) = &self.step {
            fault = fault.with("step", step.as_str());
        }
        match exit_code(message) {
            Some(code) => fault.with("exit_code", code),
            None => fault,
        }
    }
}

/// `STEP 2/5: RUN x`, in a build of several stages after `[1/2] `.
fn step(line: &str) -> Option<(u32, u32, &str)> {
    let line = match line.strip_prefix('[') {
        Some(rest) => {
            rest.split_once("] ")
                .filter(|(stage, _)| stage.len() < 20)?
                .1
        }
        None => line,
    };
    let (place, instruction) = line.strip_prefix("STEP ")?.split_once(": ")?;
    let (number, total) = place.split_once('/')?;
    let (number, total) = (number.parse().ok()?, total.parse().ok()?);
    (1..=total)
        .contains(&number)
        .then_some((number, total, instruction))
}

/// The code in `… exit status 3`.
fn exit_code(message: &str) -> Option<i32> {
    let (_, after) = message.rsplit_once("exit status ")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Podman 4.3.1.
    const GOOD: &str = concat!(
        r#"{"stream":"STEP 1/3: FROM localhost/terok-test-base\n"}"#,
        "\n",
        r#"{"stream":"STEP 2/3: RUN echo hello; echo err \u003e\u00262\n"}"#,
        "\n",
        r#"{"stream":"--\u003e Using cache 29ccd2d2c382b20cca74511ff68f54bc98bd2f795fecd3d96af03ae980b2066b\n"}"#,
        "\n",
        r#"{"stream":"--\u003e 29ccd2d2c38\n"}"#,
        "\n",
        r#"{"stream":"STEP 3/3: COPY x /x\n"}"#,
        "\n",
        r#"{"stream":"COMMIT localhost/lab:1\n"}"#,
        "\n",
        r#"{"stream":"Successfully tagged localhost/lab:1\n"}"#,
        "\n",
        r#"{"stream":"e60efcd9deb9b8f18c8c35bb08d1c71b73d9279f568eaeade7e08bcb52f75d73\n"}"#,
        "\n",
    );
    const BAD: &str = concat!(
        r#"{"stream":"STEP 1/2: FROM localhost/terok-test-base\n"}"#,
        "\n",
        r#"{"stream":"STEP 2/2: RUN exit 3\n"}"#,
        "\n",
        r#"{"errorDetail":{"message":"building at STEP \"RUN exit 3\": while running runtime: exit status 3\n"},"error":"building at STEP \"RUN exit 3\": while running runtime: exit status 3\n"}"#,
        "\n",
    );

    fn decode(pieces: &[&[u8]]) -> (Vec<BuildItem>, Result<bool, Fault>) {
        let (mut output, mut out) = (Output::new(1 << 20), VecDeque::new());
        for piece in pieces {
            match output.feed(piece, &mut out) {
                Ok(false) => {}
                over => return (out.into(), over),
            }
        }
        let end = output.end(&mut out);
        (out.into(), end)
    }

    #[test]
    fn a_recorded_build_is_read() {
        let (items, end) = decode(&[GOOD.as_bytes()]);
        assert_eq!(end, Ok(true));
        assert_eq!(items.len(), 9);
        let from = "FROM localhost/terok-test-base".to_owned();
        assert_eq!(
            items[0],
            BuildItem::Step {
                number: 1,
                total: 3,
                instruction: from
            }
        );
        let image_id =
            "e60efcd9deb9b8f18c8c35bb08d1c71b73d9279f568eaeade7e08bcb52f75d73".to_owned();
        assert_eq!(items[7], BuildItem::Log(image_id.clone()));
        assert_eq!(
            items[8],
            BuildItem::Done(Built {
                image_id,
                cached: false
            })
        );
    }

    #[test]
    fn the_last_item_tells_whether_all_came_from_the_cache() {
        let done = |text: &str| match decode(&[text.as_bytes()]).0.pop() {
            Some(BuildItem::Done(built)) => built.cached,
            other => panic!("{other:?}"),
        };
        assert!(!done(GOOD));
        let copy = r#"{"stream":"STEP 3/3: COPY x /x\n"}"#;
        let cached = format!("{copy}\n{}", r#"{"stream":"--> Using cache 00\n"}"#);
        assert!(done(&GOOD.replace(copy, &cached)));
    }

    #[test]
    fn a_failed_step_is_a_fault_with_its_story() {
        let (items, end) = decode(&[BAD.as_bytes()]);
        let fault = end.unwrap_err();
        assert_eq!(items.len(), 2);
        assert_eq!(fault.kind, Kind::BuildFailed);
        assert_eq!(
            fault.message,
            "building at STEP \"RUN exit 3\": while running runtime: exit status 3"
        );
        assert_eq!(fault.data["exit_code"], 3);
        assert_eq!(fault.data["step"], "STEP 2/2: RUN exit 3");
        assert_eq!(fault.data["lines"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_build_that_just_ends_has_failed() {
        let cut = &GOOD[..GOOD.len() - 80];
        for text in ["", "{}\n", cut.rsplit_once('\n').unwrap().0] {
            assert_eq!(
                decode(&[text.as_bytes()]).1.unwrap_err().kind,
                Kind::BuildFailed,
                "{text}"
            );
        }
        assert_eq!(
            decode(&[b"<html>\n"]).1.unwrap_err().kind,
            Kind::PodmanError
        );
    }

    #[test]
    fn steps_of_several_stages_are_read_and_fakes_are_text() {
        assert_eq!(step("[1/2] STEP 2/3: RUN a: b"), Some((2, 3, "RUN a: b")));
        for text in [
            "STEP 0/3: x",
            "STEP 4/3: x",
            "STEP 1/99999999999: x",
            "STEP a/b: x",
            "[",
            "STEP 1/1",
            "[x STEP 1/1: y",
        ] {
            assert_eq!(step(text), None, "{text}");
        }
    }

    #[test]
    fn endless_lines_are_cut_or_refused() {
        let (mut output, mut out) = (Output::new(1000), VecDeque::new());
        assert!(output.feed(&[b'x'; 1000], &mut out).is_ok());
        assert_eq!(
            output.feed(b"x", &mut out).unwrap_err().kind,
            Kind::PodmanError
        );

        let (mut output, mut out) = (Output::new(1 << 20), VecDeque::new());
        let item = format!("{{\"stream\":\"{}\"}}\n", "ä\\u001b".repeat(1000));
        for _ in 0..100 {
            output.feed(item.as_bytes(), &mut out).unwrap();
        }
        output.feed(b"{\"stream\":\"\\n\"}\n", &mut out).unwrap();
        let Some(BuildItem::Log(line)) = out.pop_back() else {
            panic!()
        };
        assert!(out.is_empty() && line.len() < 8 * TEXT && !line.contains('\x1b'));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cuts in prop::collection::vec(0..GOOD.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.extend([0, GOOD.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &GOOD.as_bytes()[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(&pieces), decode(&[GOOD.as_bytes()]));
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), at in 0..GOOD.len(), byte: u8) {
            let _ = decode(&[&bytes]);
            let mut changed = GOOD.as_bytes().to_vec();
            changed[at] = byte;
            let _ = decode(&[&changed]);
        }

        #[test]
        fn text_is_never_lost_between_items(lines in prop::collection::vec("[a-z ]{0,20}[a-z]", 0..20), cut in 1..7_usize) {
            let all: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let mut fed = Vec::new();
            for part in all.as_bytes().chunks(cut) {
                let part = std::str::from_utf8(part).unwrap();
                fed.extend(serde_json::to_vec(&serde_json::json!({"stream": part})).unwrap());
                fed.push(b'\n');
            }
            let (items, _) = decode(&[&fed]);
            let logs: Vec<_> = items.into_iter().filter_map(|item| match item { BuildItem::Log(line) => Some(line), _ => None }).collect();
            prop_assert_eq!(logs, lines);
        }
    }
}
