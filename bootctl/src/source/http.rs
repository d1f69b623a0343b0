//! A bundle on an HTTP server.
//!
//! The first request asks for a range; a server that answers 206 is asked for exactly the ranges
//! that are wanted, one that answers 200 is read front to back. A connection that breaks, stalls
//! or ends early is opened again where it stopped, with growing pauses; every byte that was
//! wanted and arrives starts the count of attempts anew (one that is only read over does not). A server that trickles
//! is left for a new connection too, and each stretch in which it was too slow counts as an attempt ([`super::rate`]).
//! The size and the validator (ETag or Last-Modified) of the first answer must be those of every later one: otherwise
//! it is another file. A page in place of a file is a portal's, most likely.

use std::io::Read;
use std::time::{Duration, Instant};

use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use super::rate::Rate;
use super::web::Web;
use super::{Source, too_short};
use crate::failure::{Failure, Result};
use crate::os::clock::Pace;
use crate::progress::Progress;

/// Gaps up to this are read over rather than asked around.
const SMALL_GAP: u64 = 128 * 1024;
/// What the first request asks for: header, envelope and keyring of an ordinary bundle.
const FIRST: u64 = 256 * 1024;

/// How often and how patiently a request is tried.
#[derive(Debug, Clone)]
pub struct Retry {
    /// Attempts without one wanted byte.
    pub attempts: u32,
    /// The first pause; each later one is twice as long, up to 30 s.
    pub pause: Duration,
    /// How long to wait for a connection, and for the next bytes.
    pub patience: Duration,
    /// Fewer bytes a second than this, over [`Self::rate_over`], are as good as none.
    pub least_rate: u64,
    pub rate_over: Duration,
    /// Where nobody is there to say it again: what has begun to arrive is tried for until then, however many attempts
    /// that takes.
    pub until: Option<Instant>,
}

impl Retry {
    /// The default, with pauses of that pace.
    #[must_use]
    pub fn at(pace: Pace) -> Self {
        let field = Self::default();
        Self {
            pause: pace.of(field.pause),
            ..field
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            // Pauses of a minute in all: a network that has just come up may need some of it.
            attempts: 8,
            pause: Duration::from_millis(500),
            patience: Duration::from_secs(30),
            least_rate: 1000,
            rate_over: Duration::from_secs(300),
            until: None,
        }
    }
}

struct Stream {
    reader: Box<dyn Read + Send>,
    at: u64,
    /// Where this answer ends, if it said so.
    end: Option<u64>,
}

/// A bundle's bytes, from an HTTP server.
pub struct Http {
    agent: Agent,
    url: String,
    /// The address as messages have it.
    shown: String,
    progress: Progress,
    retry: Retry,
    size: Option<u64>,
    validator: Option<String>,
    ranges: bool,
    stream: Option<Stream>,
    expected: u64,
    /// Its beginning has arrived.
    begun: bool,
    rate: Rate,
    /// Stretches in a row that were too slow.
    slow: u32,
}

/// Why a request did not work out.
enum Trouble {
    /// May go away by itself.
    Passing(String),
    /// Will not.
    Final(Failure),
}

impl Http {
    /// Asks for the beginning of `url`.
    ///
    /// # Errors
    /// [`crate::failure::Code::Source`], after trying again where that can help.
    pub fn open(url: &str, progress: Progress, retry: Retry, web: &Web) -> Result<Self> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(retry.patience))
            .timeout_recv_response(Some(retry.patience))
            .timeout_per_read(Some(retry.patience))
            .user_agent(concat!("bootctl/", env!("CARGO_PKG_VERSION")));
        let mut http = Self {
            agent: web.agent(config, url),
            url: url.to_owned(),
            shown: super::shown(url),
            progress,
            size: None,
            validator: None,
            ranges: true,
            stream: None,
            expected: FIRST,
            begun: false,
            rate: Rate::new(retry.least_rate, retry.rate_over),
            slow: 0,
            retry,
        };
        let mut attempt = 0;
        while let Err(trouble) = http.connect(0, true) {
            attempt = http.pause_or_fail(attempt, trouble)?;
        }
        http.begun = true;
        Ok(http)
    }

    /// Opens a stream that begins at `offset` (or at 0, where there are no ranges).
    fn connect(&mut self, offset: u64, first: bool) -> std::result::Result<(), Trouble> {
        self.stream = None;
        let mut request = self
            .agent
            .get(&self.url)
            .header(header::ACCEPT_ENCODING, "identity");
        if self.ranges {
            let last = self
                .size
                .map_or(self.expected, |size| self.expected.min(size))
                .max(offset + 1)
                - 1;
            request = request.header(header::RANGE, format!("bytes={offset}-{last}"));
        }
        let response = request.call().map_err(|e| self.classify(&e))?;
        let status = response.status();
        if status.is_success() && is_page(&response) {
            let what = "the server answered with a page (text/html), not with a file";
            return Err(if first {
                let failure = self.fail(what);
                Trouble::Final(failure.next("a portal of this network may want somebody to log in; else check the address: open it with another program"))
            } else {
                Trouble::Passing(what.to_owned())
            });
        }
        let validator = validator(&response);
        let stream = match status {
            StatusCode::PARTIAL_CONTENT => {
                let Some((start, end, total)) = content_range(&response) else {
                    return Err(Trouble::Final(self.fail(
                        "the server answered a range request with no usable Content-Range",
                    )));
                };
                if start != offset {
                    return Err(Trouble::Final(self.fail(format!(
                        "asked for bytes from {offset}, the server sent bytes from {start}"
                    ))));
                }
                if first {
                    self.size = total;
                } else if total != self.size {
                    return Err(Trouble::Final(self.changed()));
                }
                Stream {
                    reader: Box::new(response.into_body().into_reader()),
                    at: offset,
                    end: Some(end),
                }
            }
            StatusCode::OK => {
                let size = content_length(&response);
                if first {
                    self.ranges = false;
                    self.size = size;
                } else if size != self.size {
                    return Err(Trouble::Final(self.changed()));
                } else {
                    self.ranges = false;
                }
                Stream {
                    reader: Box::new(response.into_body().into_reader()),
                    at: 0,
                    end: size,
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE if first => {
                return Err(Trouble::Final(self.fail("the file on the server is empty")));
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(Trouble::Final(self.changed())),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                return Err(Trouble::Passing(format!("the server answered {status}")));
            }
            _ if status.is_server_error() => {
                return Err(Trouble::Passing(format!("the server answered {status}")));
            }
            _ => {
                return Err(Trouble::Final(
                    self.fail(format!("the server answered {status}"))
                        .next("check the address; open it with another program"),
                ));
            }
        };
        if first {
            self.validator = validator;
        } else if validator != self.validator {
            return Err(Trouble::Final(self.changed()));
        }
        self.stream = Some(stream);
        Ok(())
    }

    fn classify(&self, error: &ureq::Error) -> Trouble {
        let text = error.to_string();
        // Both hold the address, and with it what may be secret in it.
        if matches!(error, ureq::Error::BadUri(_)) || text.starts_with("protocol: location") {
            let failure = self.fail("the server redirects to what is no address");
            return Trouble::Final(failure.next("ask whoever runs the server"));
        }
        if let Some(rustls::Error::InvalidCertificate(_)) = of_tls(error) {
            let failure = self.fail(error);
            return Trouble::Final(failure.next("if an authority of this site signed the server's certificate, name it under `network.authorities` in the profile; if the clock is wrong: `bootctl time set`"));
        }
        match error {
            ureq::Error::InvalidProxyUrl
            | ureq::Error::TooManyRedirects
            | ureq::Error::RedirectFailed
            | ureq::Error::Tls(_)
            | ureq::Error::Rustls(_) => Trouble::Final(self.fail(error)),
            _ => Trouble::Passing(text.replace(&self.url, &self.shown)),
        }
    }

    fn fail(&self, what: impl std::fmt::Display) -> Failure {
        let what = what.to_string().replace(&self.url, &self.shown);
        Failure::source(format!("{}: {what}", self.shown))
    }

    fn changed(&self) -> Failure {
        self.fail("the file on the server changed during the download")
            .next("run the same command again: it begins anew with the new file")
    }

    /// Waits before the next attempt, or gives up.
    fn pause_or_fail(&mut self, attempt: u32, trouble: Trouble) -> Result<u32> {
        let what = match trouble {
            Trouble::Final(failure) => return Err(failure),
            Trouble::Passing(what) => what,
        };
        self.stream = None;
        let attempt = (attempt + 1).max(self.slow);
        let give_up = match self.retry.until {
            Some(until) if self.begun => Instant::now() >= until,
            _ => attempt >= self.retry.attempts,
        };
        if give_up {
            return Err(self
                .fail(format!("{what} ({attempt} attempts)"))
                .next("check the network and the server, then run the same command again; what is already in the slot is kept"));
        }
        let longer = 2u32.pow((attempt - 1).min(6));
        let pause = (self.retry.pause * longer).min(Duration::from_secs(30));
        self.progress.note(&format!(
            "{what}; trying again in {:.1} s",
            pause.as_secs_f32()
        ));
        std::thread::sleep(pause);
        // A server that ends each connection after a byte is waited for here.
        self.arrived(pause, 0);
        Ok(attempt)
    }

    /// Takes in what came of waiting so long; what is to be said if the server has been too slow for a while.
    fn arrived(&mut self, waited: Duration, bytes: usize) -> Option<String> {
        let judged = self.rate.take(waited, bytes as u64)?;
        self.slow = if judged.is_ok() { 0 } else { self.slow + 1 };
        judged.err()
    }

    /// Brings the stream to `offset`.
    fn seek(&mut self, offset: u64) -> std::result::Result<(), Trouble> {
        let usable = self.stream.as_ref().is_some_and(|s| {
            s.at <= offset
                && s.end.is_none_or(|end| offset < end)
                && (!self.ranges || offset - s.at <= SMALL_GAP)
        });
        if !usable {
            self.connect(offset, false)?;
        }
        let mut skip = [0; 16 * 1024];
        loop {
            let Some(stream) = &self.stream else {
                return Err(Trouble::Passing("no connection".into()));
            };
            let over = offset.saturating_sub(stream.at);
            if over == 0 {
                return Ok(());
            }
            let part = usize::try_from(over).unwrap_or(skip.len()).min(skip.len());
            self.read_some(&mut skip[..part])?;
        }
    }

    /// Reads at least one byte.
    fn read_some(&mut self, buf: &mut [u8]) -> std::result::Result<usize, Trouble> {
        let Some(stream) = &mut self.stream else {
            return Err(Trouble::Passing("no connection".into()));
        };
        let began = Instant::now();
        let read = stream.reader.read(buf);
        let n = *read.as_ref().unwrap_or(&0);
        stream.at += n as u64;
        let at = stream.at;
        let too_slow = self.arrived(began.elapsed(), n);
        match (read, too_slow) {
            (Err(e), _) => Err(Trouble::Passing(e.to_string())),
            (Ok(0), _) => Err(Trouble::Passing(format!(
                "the server closed the connection after {at} bytes"
            ))),
            (Ok(_), Some(too_slow)) => Err(Trouble::Passing(too_slow)),
            (Ok(n), None) => Ok(n),
        }
    }
}

impl Source for Http {
    fn name(&self) -> &str {
        &self.shown
    }

    fn size(&self) -> Option<u64> {
        self.size
    }

    fn expect_until(&mut self, end: u64) {
        self.expected = end;
    }

    fn read_exact_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset + buf.len() as u64;
        if let Some(size) = self.size
            && end > size
        {
            return Err(too_short(&self.shown, offset, buf.len(), size));
        }
        self.expected = self.expected.max(end);
        let mut done = 0;
        let mut attempt = 0;
        while done < buf.len() {
            let step = self
                .seek(offset + done as u64)
                .and_then(|()| self.read_some(&mut buf[done..]));
            match step {
                Ok(n) => {
                    done += n;
                    attempt = 0;
                }
                Err(trouble) => attempt = self.pause_or_fail(attempt, trouble)?,
            }
        }
        Ok(())
    }

    fn ends_at(&mut self, offset: u64) -> Result<bool> {
        if let Some(size) = self.size {
            return Ok(size == offset);
        }
        if let Some(stream) = &mut self.stream
            && stream.at == offset
        {
            return Ok(matches!(stream.reader.read(&mut [0]), Ok(0)));
        }
        Ok(true)
    }
}

fn validator(response: &Response<Body>) -> Option<String> {
    let headers = response.headers();
    headers
        .get(header::ETAG)
        .or_else(|| headers.get(header::LAST_MODIFIED))
        .and_then(|v| v.to_str().ok())
        .map(str::to_owned)
}

/// What TLS objected to: its error comes as one of input and output, where it was found while a connection was used.
fn of_tls(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn is_page(response: &Response<Body>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|it| it.to_str().ok()).unwrap_or_default();
    kind.trim().to_ascii_lowercase().starts_with("text/html")
}

fn content_length(response: &Response<Body>) -> Option<u64> {
    response
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// `bytes FIRST-LAST/TOTAL` as first, one past the last, and the total.
fn content_range(response: &Response<Body>) -> Option<(u64, u64, Option<u64>)> {
    let value = response
        .headers()
        .get(header::CONTENT_RANGE)?
        .to_str()
        .ok()?;
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        n => Some(n.parse().ok()?),
    };
    (first <= last && total.is_none_or(|t| last < t)).then_some((
        first,
        last.checked_add(1)?,
        total,
    ))
}
