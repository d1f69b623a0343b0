//! A small HTTP server that can misbehave.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the server does with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Answers ranges.
    Ranges,
    /// Knows no ranges.
    Whole,
    /// Answers ranges, and closes the connection after so many bytes of body.
    StopAfter(usize),
    /// Knows no ranges, and closes the connection after so many bytes of body.
    WholeStopAfter(usize),
    /// Answers ranges, sends so many bytes, and no more, but does not close the connection.
    StallAfter(usize),
    /// Answers ranges, and sends a hundred bytes a second.
    Trickle,
    /// A portal's: a page, whatever was asked for.
    Page,
    /// Redirects to what is no address.
    Astray,
    /// Answers with this status.
    Status(u16),
    /// No length, no ranges; sends the file and more.
    More,
    /// Ranges of another file.
    Other,
    /// The right range, with a flipped bit in it.
    Flipped,
}

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) requests: Arc<AtomicUsize>,
    pub(crate) sent: Arc<AtomicU64>,
    behaviours: Arc<Mutex<Vec<Behaviour>>>,
}

impl Server {
    /// Serves `body`. The first request gets the first behaviour, and so on; the last one stays.
    pub(crate) fn new(body: Vec<u8>, behaviours: &[Behaviour]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            url: format!("http://{}/bundle.spb", listener.local_addr().unwrap()),
            requests: Arc::default(),
            sent: Arc::default(),
            behaviours: Arc::new(Mutex::new(behaviours.to_vec())),
        };
        let (requests, sent) = (server.requests.clone(), server.sent.clone());
        let behaviours = server.behaviours.clone();
        let body = Arc::new(body);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, sent) = (requests.clone(), sent.clone());
                let (behaviours, body) = (behaviours.clone(), body.clone());
                thread::spawn(move || {
                    let _ = answer(stream, &body, &behaviours, &requests, &sent);
                });
            }
        });
        server
    }

    pub(crate) fn now(&self, behaviour: Behaviour) {
        *self.behaviours.lock().unwrap() = vec![behaviour];
    }
}

fn answer(
    mut stream: TcpStream,
    body: &[u8],
    behaviours: &Mutex<Vec<Behaviour>>,
    requests: &AtomicUsize,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    loop {
        let mut range = None;
        let mut first = true;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() && !first {
                break;
            }
            first = false;
            if let Some(value) = line.strip_prefix("range: bytes=") {
                let (from, to) = value.split_once('-').unwrap();
                range = Some((from.parse::<usize>().unwrap(), to.parse::<usize>().unwrap()));
            }
        }
        requests.fetch_add(1, Ordering::SeqCst);
        let behaviour = {
            let mut list = behaviours.lock().unwrap();
            if list.len() > 1 {
                list.remove(0)
            } else {
                list[0]
            }
        };
        let mut body = body.to_vec();
        let mut tag = "one";
        match behaviour {
            Behaviour::Other => {
                body.reverse();
                tag = "two";
            }
            Behaviour::Flipped => {
                let last = body.len() - 100;
                body[last] ^= 1;
            }
            _ => {}
        }
        let ranges = !matches!(
            behaviour,
            Behaviour::Whole | Behaviour::WholeStopAfter(_) | Behaviour::More
        );
        let (head, part) = match (behaviour, range) {
            (Behaviour::Status(status), _) => (
                format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n"),
                vec![],
            ),
            (Behaviour::Page, _) => (
                "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 13\r\n\r\n".to_owned(),
                b"<h1>Log in!\r\n".to_vec(),
            ),
            (Behaviour::Astray, _) => (
                "HTTP/1.1 302 No\r\nContent-Length: 0\r\nLocation: http://x/a b?token=secret\r\n\r\n".to_owned(),
                vec![],
            ),
            (Behaviour::More, _) => {
                body.extend_from_slice(b"and more");
                (
                    "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned(),
                    body,
                )
            }
            (_, Some((from, to))) if ranges => {
                let to = to.min(body.len() - 1);
                let head = format!(
                    "HTTP/1.1 206 Partial\r\nETag: \"{tag}\"\r\nContent-Range: bytes {from}-{to}/{}\r\nContent-Length: {}\r\n\r\n",
                    body.len(),
                    to + 1 - from
                );
                (head, body[from..=to].to_vec())
            }
            _ => (
                format!(
                    "HTTP/1.1 200 OK\r\nETag: \"{tag}\"\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                ),
                body,
            ),
        };
        stream.write_all(head.as_bytes())?;
        if behaviour == Behaviour::Trickle {
            for byte in part {
                stream.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(10));
            }
            return Ok(());
        }
        let stop = match behaviour {
            Behaviour::StopAfter(n) | Behaviour::WholeStopAfter(n) | Behaviour::StallAfter(n) => n,
            _ => usize::MAX,
        };
        let part = &part[..part.len().min(stop)];
        stream.write_all(part)?;
        sent.fetch_add(part.len() as u64, Ordering::SeqCst);
        if matches!(behaviour, Behaviour::StallAfter(_)) {
            // Until the client has gone.
            lines.read_line(&mut String::new())?;
        }
        if stop != usize::MAX || behaviour == Behaviour::More {
            return Ok(());
        }
    }
}
