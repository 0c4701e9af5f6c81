//! Trying again until a deadline.

use crate::error::{Error, ErrorKind};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// First pause between two tries; doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between two tries.
const LAST_PAUSE: Duration = Duration::from_secs(4);

/// How long what is doubtful is tried again.
const DOUBT: Duration = Duration::from_secs(8);

/// Shortest pause after it: each directory is asked only every so often.
const DOUBTFUL_PAUSE: Duration = Duration::from_secs(2);

/// Why one try failed.
pub(super) enum Failure {
    /// May pass: try again.
    Passing(Error),
    /// May be of what was just now: try again for a while. A descriptor that is not for this machine is in Tor's directories for some seconds after the peer has
    /// recorded it.
    Doubtful(Error),
    /// Will not pass.
    Final(Error),
}

impl Failure {
    pub(super) fn kind(&self) -> ErrorKind {
        let (Self::Passing(error) | Self::Doubtful(error) | Self::Final(error)) = self;
        error.kind()
    }
}

/// What one try comes to.
pub(super) type Attempt<T> = Result<T, Failure>;

/// Repeats `attempt` until it succeeds, fails for good, or `deadline`. Then the last try's error is returned, or
/// [`ErrorKind::DialTimeout`] when none ended.
pub(super) async fn until<T, F>(deadline: Instant, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Attempt<T>>,
{
    let begin = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut last = None;
    loop {
        let Ok(outcome) = timeout_at(deadline, attempt()).await else {
            return Err(last.unwrap_or_else(|| timed_out(deadline - begin)));
        };
        if matches!(outcome, Err(Failure::Doubtful(_))) {
            pause = pause.max(DOUBTFUL_PAUSE);
        }
        let error = match outcome {
            Ok(value) => return Ok(value),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Doubtful(error)) if begin.elapsed() >= DOUBT => return Err(error),
            Err(Failure::Passing(error) | Failure::Doubtful(error)) => error,
        };
        tracing::debug!(reason = error.kind().as_str(), "dial failed for now: {error}");
        if Instant::now() + pause >= deadline {
            return Err(error);
        }
        last = Some(error);
        sleep_until(Instant::now() + pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

fn timed_out(limit: Duration) -> Error {
    Error::new(
        ErrorKind::DialTimeout,
        format!("Dialling did not end within {:.1} s.", limit.as_secs_f64()),
        "Try again; if it stays so, raise `dial-timeout` in [transport], and see whether this machine is online.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Error {
        Error::new(ErrorKind::Unreachable, "No.", "Wait.")
    }

    fn now() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn passing_failures_are_tried_again_and_final_ones_not() {
        now().block_on(async {
            let deadline = Instant::now() + Duration::from_secs(30);
            let mut tries = 0;
            let third = until(deadline, || {
                tries += 1;
                std::future::ready(if tries < 3 { Err(Failure::Passing(failure())) } else { Ok(tries) })
            });
            assert_eq!(third.await.unwrap(), 3);
            let mut tries = 0;
            let refused = until(deadline, || {
                tries += 1;
                std::future::ready(Err::<(), _>(Failure::Final(failure())))
            });
            assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::Unreachable);
            assert_eq!(tries, 1);
        });
    }

    #[test]
    fn the_deadline_ends_it_with_the_last_cause() {
        now().block_on(async {
            let begin = Instant::now();
            let deadline = begin + Duration::from_millis(400);
            let silent = until(deadline, std::future::pending::<Attempt<()>>);
            assert_eq!(silent.await.unwrap_err().kind(), ErrorKind::DialTimeout);
            let deadline = Instant::now() + Duration::from_millis(400);
            let mut tries = 0;
            let failed_then_silent = until(deadline, || {
                tries += 1;
                let silent = tries > 1;
                async move {
                    if silent {
                        std::future::pending::<()>().await;
                    }
                    Err::<(), _>(Failure::Passing(failure()))
                }
            });
            assert_eq!(failed_then_silent.await.unwrap_err().kind(), ErrorKind::Unreachable);
            assert!(begin.elapsed() < Duration::from_secs(2));
        });
    }
}
