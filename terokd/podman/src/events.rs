//! Podman's events: which lists they make doubtful. They are hints only; what changed is asked for.

use crate::fault;
use serde_json::Value;
use terok_proto::Fault;

/// Which lists may have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doubt {
    pub(crate) images: bool,
    pub(crate) containers: bool,
}

impl Doubt {
    const NONE: Self = Self {
        images: false,
        containers: false,
    };
    const BOTH: Self = Self {
        images: true,
        containers: true,
    };

    pub(crate) fn any(self) -> bool {
        self.images || self.containers
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            images: self.images || other.images,
            containers: self.containers || other.containers,
        }
    }

    /// What one event makes doubtful; whatever is not understood makes everything so.
    fn of(line: &[u8]) -> Self {
        let Ok(event) = serde_json::from_slice::<Value>(line) else {
            return Self::BOTH;
        };
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
        let action = match text("Action") {
            "" => text("status"),
            action => action,
        };
        match (text("Type"), action) {
            ("image", "push" | "save" | "mount" | "unmount" | "history") => Self::NONE,
            ("image", _) => Self {
                images: true,
                containers: false,
            },
            (
                "container",
                "exec" | "exec_died" | "attach" | "health_status" | "mount" | "unmount" | "export"
                | "copy",
            ) => Self::NONE,
            // Images are listed with the number of their containers.
            ("container", "create" | "remove" | "commit") => Self::BOTH,
            ("container", _) => Self {
                images: false,
                containers: true,
            },
            ("volume" | "network" | "secret" | "machine", _) => Self::NONE,
            _ => Self::BOTH,
        }
    }
}

/// Splits the stream into lines.
#[derive(Debug)]
pub(crate) struct Decoder {
    limit: usize,
    line: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
        }
    }

    /// What the events in this piece make doubtful together.
    pub(crate) fn feed(&mut self, mut piece: &[u8]) -> Result<Doubt, Fault> {
        let mut doubt = Doubt::NONE;
        while let Some(end) = piece.iter().position(|b| *b == b'\n') {
            self.line.extend_from_slice(&piece[..end]);
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                doubt = doubt.and(Doubt::of(&self.line));
            }
            self.line.clear();
            piece = &piece[end + 1..];
        }
        self.line.extend_from_slice(piece);
        if self.line.len() > self.limit {
            return Err(fault::nonsense(
                "events",
                format!("a line is longer than {} bytes", self.limit),
            ));
        }
        Ok(doubt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IMAGES: Doubt = Doubt {
        images: true,
        containers: false,
    };
    const CONTAINERS: Doubt = Doubt {
        images: false,
        containers: true,
    };
    /// Podman 4.3.1.
    const TAG: &str = r#"{"status":"tag","id":"3f7d","Type":"image","Action":"tag","Actor":{"ID":"3f7d","Attributes":{"containerExitCode":"0","image":"","name":"localhost/terok-test-base:latest","podId":""}},"scope":"local","time":1795437996,"timeNano":1795437996500355258}"#;
    const DIED: &str = r#"{"status":"died","id":"2854","from":"localhost/terok-test-base:latest","Type":"container","Action":"died","Actor":{"ID":"2854","Attributes":{"a":"b","containerExitCode":"5","name":"c1"}},"scope":"local","time":1795438006,"timeNano":1795438006865459169}"#;

    #[test]
    fn recorded_events_are_sorted() {
        assert_eq!(Doubt::of(TAG.as_bytes()), IMAGES);
        assert_eq!(Doubt::of(DIED.as_bytes()), CONTAINERS);
        for action in [
            "untag",
            "build",
            "remove",
            "pull",
            "import",
            "loadfromarchive",
            "prune",
            "newfangled",
        ] {
            assert_eq!(
                Doubt::of(TAG.replace("tag\"", &format!("{action}\"")).as_bytes()),
                IMAGES,
                "{action}"
            );
        }
        assert_eq!(
            Doubt::of(DIED.replace("died", "create").as_bytes()),
            Doubt::BOTH
        );
        for action in ["exec", "exec_died", "health_status"] {
            assert_eq!(
                Doubt::of(DIED.replace("died", action).as_bytes()),
                Doubt::NONE,
                "{action}"
            );
        }
    }

    #[test]
    fn what_is_not_understood_makes_everything_doubtful() {
        for line in [
            "{}",
            "null",
            "[",
            "<html>",
            "{\"Type\":5}",
            "{\"Type\":\"system\",\"Action\":\"refresh\"}",
            "{\"Type\":\"new\"}",
        ] {
            assert_eq!(Doubt::of(line.as_bytes()), Doubt::BOTH, "{line}");
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut decoder = Decoder::new(100);
        assert!(decoder.feed(&[b'x'; 100]).is_ok());
        assert!(decoder.feed(b"x").is_err());
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(order in prop::collection::vec(any::<bool>(), 0..10), size in 1..300_usize) {
            let all: String = order.iter().map(|tag| format!("{}\n", if *tag { TAG } else { DIED })).collect();
            let mut decoder = Decoder::new(1 << 20);
            let mut doubt = Doubt::NONE;
            for piece in all.as_bytes().chunks(size) {
                doubt = doubt.and(decoder.feed(piece).unwrap());
            }
            let expected = Doubt { images: order.contains(&true), containers: order.contains(&false) };
            prop_assert_eq!(doubt, expected);
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = Decoder::new(100).feed(&bytes);
        }
    }
}
