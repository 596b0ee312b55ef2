//! Bytes over the kernel's TCP without anything above it.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

use clap::Args;

use crate::{Failure, client::Figures, process::Mark};

const BLOCK_BYTES: usize = 1 << 20;

/// One side of a plain TCP connection.
#[derive(Debug, Args)]
pub(crate) struct RawArgs {
    /// Receive on this port.
    #[arg(long, required_unless_present = "send_to")]
    listen: Option<u16>,
    /// Send to this address.
    #[arg(long, conflicts_with = "listen")]
    send_to: Option<SocketAddr>,
    /// How much to send.
    #[arg(long, default_value_t = 100_000_000)]
    bytes: u64,
    /// Congestion control of the sender; the kernel's default without it.
    #[arg(long)]
    congestion: Option<String>,
}

pub(crate) fn execute(args: &RawArgs) -> Result<(), Failure> {
    match (args.listen, args.send_to) {
        (_, Some(to)) => send(to, args),
        (Some(port), None) => receive(port),
        (None, None) => Err("neither --listen nor --send-to".into()),
    }
}

fn receive(port: u16) -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    println!("{}", listener.local_addr()?);
    let (mut stream, _) = listener.accept()?;
    let mut block = vec![0; BLOCK_BYTES];
    while stream.read(&mut block)? > 0 {}
    stream.write_all(b".")?;
    Ok(())
}

fn send(to: SocketAddr, args: &RawArgs) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(to)?;
    if let Some(name) = &args.congestion {
        socket2::SockRef::from(&stream).set_tcp_congestion(name.as_bytes())?;
    }
    let mark = Mark::now()?;
    let started = Instant::now();
    let block = vec![0xa5; BLOCK_BYTES];
    let mut left = args.bytes;
    while left > 0 {
        let length = left.min(block.len() as u64) as usize;
        stream.write_all(&block[..length])?;
        left -= length as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut end = [0];
    stream.read_exact(&mut end)?;
    let figures = Figures {
        seconds: started.elapsed().as_secs_f64(),
        usage: mark.usage()?,
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
