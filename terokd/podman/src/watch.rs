//! Keeps the cached lists fresh: one stream of events, found again whenever it breaks.

use crate::Podman;
use crate::connect::answers;
use crate::events::{Decoder, Doubt};
use crate::fault;
use crate::http::{self, Answer, Call};
use crate::query::Query;
use hyper::Method;
use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use terok_proto::Fault;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

/// Events come in bursts: a list waits for a pause of this length …
const PAUSE: Duration = Duration::from_millis(50);
/// … but not longer than this.
const BURST: Duration = Duration::from_millis(500);
/// Podman announces some changes before they are finished: the list is asked for once more after the last event.
const SETTLE: Duration = Duration::from_secs(1);
/// An event carries the time at which its action began. So that none is missed that began before we listened, the
/// stream starts in the past; what is told twice costs one list.
const OVERLAP: Duration = Duration::from_secs(60);
/// A list asked for so long before the stream counts: what changed since then is told. Shorter, as clocks are set.
const TRUSTED: Duration = Duration::from_secs(30);
/// Lists that nobody has read for so long are not asked for in advance.
const INTEREST: Duration = Duration::from_secs(300);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// Listens for as long as it is polled.
pub(crate) async fn run(podman: &Podman) -> Infallible {
    let mut used = podman.used();
    // Nobody may ever ask for Podman; then it is left alone.
    let _ = used.wait_for(|count| *count > 0).await;
    let mut retry = FIRST_RETRY;
    loop {
        let mut was_live = false;
        let Err(fault) = follow(podman, &mut was_live).await;
        tracing::debug!(%fault, was_live, "podman's events are not heard");
        podman.deaf();
        retry = if was_live {
            FIRST_RETRY
        } else {
            (retry * 2).min(LAST_RETRY)
        };
        used.mark_unchanged();
        tokio::select! {
            () = tokio::time::sleep(jittered(retry)) => {}
            // Somebody asks, and a service may have been started for them.
            _ = used.changed() => tokio::time::sleep(FIRST_RETRY).await,
        }
    }
}

/// Between half and the whole of it, so that several daemons do not come at once.
fn jittered(delay: Duration) -> Duration {
    let mut random = [0; 2];
    // Without entropy it is half of it.
    let _ = getrandom::fill(&mut random);
    delay / 2 + delay / 2 * u32::from(u16::from_ne_bytes(random)) / u32::from(u16::MAX)
}

async fn follow(podman: &Podman, was_live: &mut bool) -> Result<Infallible, Fault> {
    let settings = podman.connector().settings();
    let deadlines = &settings.deadlines;
    let now = Instant::now();
    let heard = now.checked_sub(TRUSTED).unwrap_or(now);
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(OVERLAP);
    let query = Query::default()
        .flag("stream", true)
        .with("since", since.as_secs().to_string());
    let call = Call::new("events", Method::GET, query.at("/events"));
    let stream = podman.connector().connect_running().await?;
    // Podman sends the head of the answer with the first event, which may be hours away.
    let mut head = std::pin::pin!(http::send(stream, call));
    let mut answer: Option<Answer> = None;
    let mut decoder = Decoder::new(settings.limits.line);
    let mut due = Due::default();
    let mut probe = interval_at(Instant::now(), deadlines.probe);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Not in the way of events, which are heard meanwhile.
    let mut probing = std::pin::pin!(None);
    loop {
        let next = due.next();
        tokio::select! {
            arrived = &mut head, if answer.is_none() => {
                let arrived = arrived?;
                if arrived.status != 200 {
                    arrived.whole(settings.limits.answer).await?.done()?;
                    return Err(fault::nonsense("events", "it is no stream"));
                }
                answer = Some(arrived);
            }
            piece = async { answer.as_mut().expect("there is one").piece().await }, if answer.is_some() => {
                let piece = piece?.ok_or_else(|| fault::broken("events", "the stream has ended"))?;
                let doubt = decoder.feed(&piece)?;
                if doubt.any() {
                    podman.doubt(doubt);
                    due.event(doubt);
                }
            }
            _ = probe.tick(), if probing.is_none() => {
                probing.set(Some(timeout(deadlines.read, async {
                    answers(podman.connector().connect_running().await?).await
                        .then_some(())
                        .ok_or_else(|| fault::broken("events", "a ping is not answered"))
                })));
            }
            alive = async { probing.as_mut().as_pin_mut().expect("there is one").await }, if probing.is_some() => {
                probing.set(None);
                alive.map_err(|_| fault::timeout("a ping", deadlines.read))??;
                if !*was_live {
                    *was_live = true;
                    podman.heard(heard);
                    podman.refresh(Doubt { images: true, containers: true }, INTEREST);
                }
            }
            () = async { sleep_until(next.expect("there is one")).await }, if next.is_some() => {
                let doubt = due.take();
                if doubt.settled {
                    podman.doubt(doubt.doubt);
                }
                podman.refresh(doubt.doubt, INTEREST);
            }
        }
    }
}

/// When lists are asked for because of events.
#[derive(Debug, Default)]
struct Due {
    /// Since the last time.
    burst: Option<Burst>,
    /// Everything that has to be looked at once more.
    settle: Option<(Instant, Doubt)>,
}

#[derive(Clone, Copy, Debug)]
struct Burst {
    began: Instant,
    at: Instant,
    doubt: Doubt,
}

struct Taken {
    doubt: Doubt,
    settled: bool,
}

impl Due {
    fn event(&mut self, doubt: Doubt) {
        let now = Instant::now();
        let burst = self.burst.get_or_insert(Burst {
            began: now,
            at: now,
            doubt,
        });
        burst.at = (now + PAUSE).min(burst.began + BURST);
        burst.doubt = burst.doubt.and(doubt);
        let (at, all) = self.settle.get_or_insert((now, doubt));
        *at = now + SETTLE;
        *all = all.and(doubt);
    }

    fn next(&self) -> Option<Instant> {
        let burst = self.burst.map(|burst| burst.at);
        let settle = self.settle.map(|(at, _)| at);
        burst.into_iter().chain(settle).min()
    }

    /// What is due at the first of the moments.
    fn take(&mut self) -> Taken {
        match (self.burst, self.settle) {
            (Some(burst), settle) if settle.is_none_or(|(at, _)| burst.at <= at) => {
                self.burst = None;
                Taken {
                    doubt: burst.doubt,
                    settled: false,
                }
            }
            (_, settle) => {
                self.settle = None;
                Taken {
                    doubt: settle.map(|(_, doubt)| doubt).unwrap_or_default(),
                    settled: true,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_list_and_one_more_when_it_has_settled() {
        let images = Doubt {
            images: true,
            containers: false,
        };
        let begun = Instant::now();
        let mut due = Due::default();
        assert_eq!(due.next(), None);
        for _ in 0..5 {
            due.event(images);
            tokio::time::advance(PAUSE / 2).await;
        }
        let quiet = begun + PAUSE / 2 * 4 + PAUSE;
        assert_eq!(due.next(), Some(quiet));
        let taken = due.take();
        assert_eq!((taken.doubt, taken.settled), (images, false));
        assert_eq!(due.next(), Some(begun + PAUSE / 2 * 4 + SETTLE));
        assert!(due.take().settled);
        assert_eq!(due.next(), None);

        let begun = Instant::now();
        for _ in 0..100 {
            due.event(images);
            tokio::time::advance(PAUSE / 2).await;
        }
        assert_eq!(
            due.next(),
            Some(begun + BURST),
            "a storm does not put it off for ever"
        );
    }

    #[test]
    fn jitter_stays_within_bounds() {
        for _ in 0..1000 {
            let delay = jittered(LAST_RETRY);
            assert!(delay >= LAST_RETRY / 2 && delay <= LAST_RETRY, "{delay:?}");
        }
    }
}
