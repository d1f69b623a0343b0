//! HTTP answers, as `bootctl install` sees them: its own client, over a real connection to a server that does what the
//! fuzzer says.
//!
//! - a server that breaks off, ignores ranges, changes its file or answers with errors, but sends what its headers say,
//!   ends in the right bytes or in an error; never in those of two versions;
//! - whatever a server sends, memory is bounded and the client comes to an end.
#![no_main]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use arbitrary::Arbitrary;
use bootctl::progress::Progress;
use bootctl::source::Source as _;
use bootctl::source::http::{Http, Retry};
use bootctl::source::web::Web;
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::memory;

#[derive(Arbitrary, Debug)]
struct Input {
    size: u16,
    answers: Vec<Answer>,
    /// How far to go on, and how much to read.
    reads: Vec<(u16, u16)>,
}

#[derive(Arbitrary, Clone, Debug)]
enum Answer {
    File(Sent),
    Status(u16),
    /// To the same address.
    Redirect,
    /// Any bytes.
    Raw(Vec<u8>),
    Nothing,
}

/// A part of the file, or all of it.
#[derive(Arbitrary, Clone, Debug, Default)]
struct Sent {
    /// Of the file; each version has other bytes and another ETag.
    version: u8,
    ignores_range: bool,
    chunked: bool,
    no_length: bool,
    total_unknown: bool,
    /// Breaks off after so many bytes.
    cut: Option<u16>,
    /// Sends more or less than was asked for, and says so.
    until: Option<u16>,
    /// Says that it is from elsewhere: a lie.
    lies: Option<u8>,
}

impl Answer {
    /// Whether what is sent is what the headers say.
    fn is_true(&self) -> bool {
        match self {
            Self::Raw(_) => false,
            Self::File(sent) => sent.lies.is_none(),
            _ => true,
        }
    }
}

/// What the server does next, and which version it sent first.
#[derive(Default)]
struct Script {
    size: u64,
    answers: Vec<Answer>,
    version: Option<u8>,
}

static SCRIPT: Mutex<Option<Script>> = Mutex::new(None);

/// Where the server listens.
static ADDRESS: LazyLock<String> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever has gone does not want an answer.
            let _ = answer(&stream);
        }
    });
    format!("http://{address}/bundle.spb")
});

fn byte(version: u8, at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9) >> 7) as u8 ^ version
}

fn answer(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut range = None;
    for line in BufReader::new(stream).lines() {
        let line = line?.to_ascii_lowercase();
        if let Some((first, last)) = line
            .strip_prefix("range: bytes=")
            .and_then(|it| it.split_once('-'))
        {
            range = first.parse::<u64>().ok().zip(last.parse::<u64>().ok());
        }
        if line.is_empty() {
            break;
        }
    }
    let mut guard = SCRIPT.lock().expect("nobody panics with it");
    let Some(script) = guard.as_mut() else {
        return Ok(());
    };
    let next = script.answers.pop();
    let sent = match next.unwrap_or(Answer::File(Sent {
        version: script.version.unwrap_or(0),
        ..Sent::default()
    })) {
        Answer::File(sent) => sent,
        Answer::Status(code) => {
            let code = 300 + code % 300;
            return write!(
                stream,
                "HTTP/1.1 {code} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        Answer::Redirect => {
            let to = "HTTP/1.1 302 Found\r\nLocation: /bundle.spb\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return stream.write_all(to.as_bytes());
        }
        Answer::Raw(bytes) => {
            // To another host than this one it must not go.
            let leads_away = bytes
                .windows(7)
                .any(|it| it.eq_ignore_ascii_case(b"ocation"));
            return stream.write_all(if leads_away { b"" } else { &bytes });
        }
        Answer::Nothing => return Ok(()),
    };
    let size = script.size;
    let ranged = range.filter(|(first, _)| !sent.ignores_range && *first < size);
    let (first, end) = match (ranged, range) {
        (Some((first, last)), _) => {
            let end = sent
                .until
                .map_or(last + 1, |more| first + 1 + u64::from(more));
            (first, end.min(size))
        }
        (None, Some((first, _))) if first >= size && !sent.ignores_range => {
            return stream
                .write_all(b"HTTP/1.1 416 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        _ => (0, size),
    };
    script.version.get_or_insert(sent.version);
    drop(guard);
    let mut head = String::from(if ranged.is_some() {
        "HTTP/1.1 206 Partial Content\r\n"
    } else {
        "HTTP/1.1 200 OK\r\n"
    });
    head += &format!("ETag: \"{}\"\r\nConnection: close\r\n", sent.version);
    if ranged.is_some() {
        let total = if sent.total_unknown {
            "*".into()
        } else {
            size.to_string()
        };
        let lie = u64::from(sent.lies.unwrap_or(0));
        head += &format!(
            "Content-Range: bytes {}-{}/{total}\r\n",
            first + lie,
            end - 1 + lie
        );
    }
    let body: Vec<u8> = (first..end).map(|at| byte(sent.version, at)).collect();
    let cut = sent
        .cut
        .map_or(body.len(), |cut| usize::from(cut).min(body.len()));
    if sent.chunked {
        head += "Transfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes())?;
        for chunk in body[..cut].chunks(1000) {
            write!(stream, "{:x}\r\n", chunk.len())?;
            stream.write_all(chunk)?;
            stream.write_all(b"\r\n")?;
        }
        if cut == body.len() {
            stream.write_all(b"0\r\n\r\n")?;
        }
        return Ok(());
    }
    if !sent.no_length {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    let mut bytes = head.into_bytes();
    bytes.extend(&body[..cut]);
    stream.write_all(&bytes)
}

fuzz_target!(|input: Input| {
    let answers: Vec<_> = input.answers.into_iter().take(12).collect();
    let is_true = answers.iter().all(Answer::is_true);
    let size = u64::from(input.size);
    let script = Script {
        size,
        answers: answers.into_iter().rev().collect(),
        version: None,
    };
    let address = LazyLock::force(&ADDRESS);
    *SCRIPT.lock().expect("nobody panics with it") = Some(script);
    let retry = Retry {
        attempts: 3,
        pause: Duration::ZERO,
        patience: Duration::from_secs(5),
        ..Retry::default()
    };
    memory::within(4 << 20, || {
        let Ok(mut http) = Http::open(address, Progress::silent(), retry, &Web::default()) else {
            return;
        };
        let mut at = 0;
        for (skip, length) in input.reads.iter().take(8) {
            at += u64::from(*skip % 4096);
            let mut buf = vec![0; usize::from(*length)];
            http.expect_until(at + u64::from(*length));
            if http.read_exact_at(at, &mut buf).is_err() {
                return;
            }
            if is_true {
                let version = SCRIPT.lock().expect("nobody panics with it");
                let version = version.as_ref().and_then(|it| it.version).unwrap_or(0);
                let right = (at..)
                    .zip(&buf)
                    .all(|(at, found)| *found == byte(version, at));
                assert!(right, "bytes at {at} are not the file's");
            }
            at += u64::from(*length);
        }
        let _ = http.ends_at(at);
    });
});
