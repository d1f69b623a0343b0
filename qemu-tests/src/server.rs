//! A plain HTTP server for bundles, and ways for it to misbehave.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Serves the files of one directory on a port of the host. Machines reach it under [`Server::url`].
#[derive(Debug)]
pub struct Server {
    port: u16,
    faults: Arc<Faults>,
}

/// What the server does wrong; zero is "nothing".
#[derive(Debug, Default)]
struct Faults {
    /// Most bytes a second.
    rate: AtomicU64,
    /// Bytes of each answer after which the connection is closed.
    stop_after: AtomicU64,
    /// Bytes sent so far.
    sent: AtomicU64,
}

impl Server {
    /// Starts serving `directory`. Ends with the program.
    ///
    /// # Errors
    /// No port can be listened on.
    pub fn start(directory: &Path) -> Result<Server> {
        Server::start_on(directory, 0)
    }

    /// The same on a certain port, for machines that were told of it long ago; 0 is any.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub fn start_on(directory: &Path, port: u16) -> Result<Server> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("cannot listen on port {port} of the host"))?;
        let port = listener.local_addr()?.port();
        let faults = Arc::new(Faults::default());
        let (directory, shared) = (directory.to_owned(), Arc::clone(&faults));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (directory, faults) = (directory.clone(), Arc::clone(&shared));
                // A client that goes away is that scenario's business.
                std::thread::spawn(move || answer(stream, &directory, &faults));
            }
        });
        Ok(Server { port, faults })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where a machine finds `file`: QEMU's user network has the host at this address.
    #[must_use]
    pub fn url(&self, file: &str) -> String {
        format!("http://10.0.2.2:{}/{file}", self.port)
    }

    /// Sends at most so many bytes a second from now on; 0 is as fast as it can.
    pub fn limit_rate(&self, bytes_per_second: u64) {
        self.faults.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Closes each connection after so many bytes of its answer; 0 is never.
    pub fn stop_after(&self, bytes: u64) {
        self.faults.stop_after.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of files sent since the start.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.faults.sent.load(Ordering::Relaxed)
    }
}

/// Answers the requests of one connection.
fn answer(stream: TcpStream, directory: &Path, faults: &Faults) -> Result<()> {
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if input.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut range = None;
        loop {
            let mut header = String::new();
            if input.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("range")
            {
                range = parse_range(value.trim());
            }
        }
        let mut words = first.split_whitespace();
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let Some(file) = find(directory, path) else {
            output.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        };
        send(&mut output, &file, range, method == "HEAD", faults)?;
    }
}

/// The file that a request names: one of the directory itself, nothing below or above it.
fn find(directory: &Path, path: &str) -> Option<PathBuf> {
    let name = path.strip_prefix('/')?;
    let plain = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    let file = directory.join(name);
    (plain && file.is_file()).then_some(file)
}

/// `bytes=FIRST-` or `bytes=FIRST-LAST`.
fn parse_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let last = if last.is_empty() {
        None
    } else {
        Some(last.parse().ok()?)
    };
    Some((first.parse().ok()?, last))
}

fn send(
    output: &mut TcpStream,
    path: &Path,
    range: Option<(u64, Option<u64>)>,
    head: bool,
    faults: &Faults,
) -> Result<()> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let (start, end) = match range {
        Some((first, last)) if first < size => {
            (first, last.map_or(size, |last| (last + 1).min(size)))
        }
        Some(_) => {
            let answer = format!(
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{size}\r\nContent-Length: 0\r\n\r\n"
            );
            return Ok(output.write_all(answer.as_bytes())?);
        }
        None => (0, size),
    };
    let status = match range {
        Some(_) => format!(
            "206 Partial Content\r\nContent-Range: bytes {start}-{}/{size}",
            end - 1
        ),
        None => "200 OK".to_owned(),
    };
    let length = end - start;
    output.write_all(
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nContent-Type: application/octet-stream\r\nAccept-Ranges: bytes\r\n\r\n").as_bytes(),
    )?;
    if head {
        return Ok(());
    }
    file.seek(SeekFrom::Start(start))?;
    let mut buffer = vec![0; 64 << 10];
    let mut sent = 0;
    while sent < length {
        let stop_after = faults.stop_after.load(Ordering::Relaxed);
        if stop_after != 0 && sent >= stop_after {
            anyhow::bail!("stopped on purpose");
        }
        let part = (length - sent).min(buffer.len() as u64) as usize;
        file.read_exact(&mut buffer[..part])?;
        output.write_all(&buffer[..part])?;
        sent += part as u64;
        faults.sent.fetch_add(part as u64, Ordering::Relaxed);
        let rate = faults.rate.load(Ordering::Relaxed);
        if rate != 0 {
            std::thread::sleep(Duration::from_secs_f64(part as f64 / rate as f64));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn whole_files_and_ranges_are_served() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("bundle"), "0123456789").unwrap();
        let server = Server::start(directory.path()).unwrap();
        assert!(get(&server, "GET /bundle HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n0123456789"));
        assert!(
            get(&server, "GET /bundle HTTP/1.1\r\nRange: bytes=2-4\r\n\r\n")
                .ends_with("\r\n\r\n234")
        );
        assert!(
            get(&server, "GET /bundle HTTP/1.1\r\nrange: bytes=8-\r\n\r\n")
                .contains("bytes 8-9/10")
        );
        assert!(
            get(&server, "GET /bundle HTTP/1.1\r\nRange: bytes=10-\r\n\r\n")
                .starts_with("HTTP/1.1 416")
        );
        assert!(get(&server, "HEAD /bundle HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
        for outside in ["/", "/../bundle", "/.hidden", "/none"] {
            assert!(
                get(&server, &format!("GET {outside} HTTP/1.1\r\n\r\n"))
                    .starts_with("HTTP/1.1 404"),
                "{outside}"
            );
        }
        assert_eq!(server.sent(), 15);
    }
}
