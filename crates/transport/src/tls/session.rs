//! A TLS session without IO: ciphertext and plaintext in, plaintext and ciphertext out.
//!
//! Drives the unbuffered API of `rustls`. Received records are decrypted in place in one buffer
//! that large socket reads fill; sent records are laid one behind the other in another, which
//! one socket write empties. Both are bounded, so a peer that does not read stops the writer.

use std::sync::Arc;

use rustls::{
    CommonState, Error,
    client::{ClientConfig, UnbufferedClientConnection},
    pki_types::ServerName,
    server::{ServerConfig, UnbufferedServerConnection},
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, EncryptError, ReadTraffic, UnbufferedStatus,
        WriteTraffic,
    },
};

use crate::buffer::{Buffer, MIN_BYTES};

/// Ciphertext received and not yet decrypted, at most, in bytes.
///
/// One read of the socket takes as much as it has, and the plaintext of a buffer of this size
/// still lies in a second-level cache when the muxer copies it out.
const RECEIVE_LIMIT: usize = 256 * 1024;

/// Ciphertext waiting for the socket, at most, in bytes: a Yamux frame of 256 KiB goes out in
/// two writes, and what a peer that does not read costs stays small.
const SEND_LIMIT: usize = 192 * 1024;

/// Ciphertext at which a write to the socket begins without being asked for, in bytes.
const SEND_AT: usize = 128 * 1024;

/// Part of the send buffer that application data leaves free, in bytes: answers to the peer's
/// key updates, of which the library accepts 32 in a row at 27 bytes each, and the last alert.
const SEND_RESERVE: usize = 2 * 1024;

/// Largest plaintext of one record, by RFC 8446, section 5.1.
const RECORD_BYTES: usize = 16 * 1024;

/// What TLS 1.3 adds to a record: 5 bytes of header, one of content type, 16 of tag.
const RECORD_OVERHEAD: usize = 22;

/// Calls in a row that may only move the handshake on. A flight has no more messages; the
/// bound keeps a fault in the library from spinning.
const MAX_ROUNDS: usize = 64;

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Where a session stands after it was given what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The handshake needs more bytes from the peer.
    Handshaking,
    /// Application data flows both ways.
    Open,
    /// The peer has said that it sends no more.
    PeerClosed,
}

/// One TLS session.
pub(super) struct Session {
    side: Side,
    received: Buffer,
    to_send: Buffer,
    /// Plaintext of the last record that did not fit into the reader's buffer.
    plaintext: Vec<u8>,
    plaintext_read: usize,
    /// Bytes at the front of `received` that are known to hold no complete record: they can be
    /// shown to the library again without a record being decrypted.
    quiet: usize,
    status: Status,
    close_queued: bool,
}

impl Session {
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Error> {
        let side = UnbufferedClientConnection::new(config, name)?;
        Ok(Self::new(Side::Client(side)))
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let side = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(Side::Server(side)))
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            received: Buffer::new(RECEIVE_LIMIT),
            to_send: Buffer::new(SEND_LIMIT),
            plaintext: Vec::new(),
            plaintext_read: 0,
            quiet: 0,
            status: Status::Handshaking,
            close_queued: false,
        }
    }

    /// What the handshake agreed on.
    pub(super) fn common(&self) -> &CommonState {
        match &self.side {
            Side::Client(connection) => connection,
            Side::Server(connection) => connection,
        }
    }

    pub(super) fn status(&self) -> Status {
        self.status
    }

    /// Space for the next read of the socket. Empty only if a peer cuts one handshake message
    /// into so many records that the buffer does not hold them.
    pub(super) fn receive_space(&mut self) -> &mut [u8] {
        // Less than a record is left here, so the copy is small beside the read it makes room for.
        self.received.compact();
        self.received.spare(MIN_BYTES)
    }

    /// Takes `count` bytes of the space as received, of `offered` that there were.
    pub(super) fn received(&mut self, count: usize, offered: usize) {
        self.received.fill(count);
        self.received.used(count);
        if count == offered {
            self.received.grow();
        }
    }

    /// Ciphertext for the socket.
    pub(super) fn to_send(&self) -> &[u8] {
        self.to_send.filled()
    }

    /// Takes `count` bytes of the ciphertext as sent.
    pub(super) fn sent(&mut self, count: usize) {
        self.to_send.consume(count);
        self.to_send.used(count);
    }

    /// Whether enough ciphertext waits that a write to the socket pays.
    pub(super) fn wants_send(&self) -> bool {
        self.to_send.len() >= SEND_AT
    }

    /// Processes what was received, until `out` has plaintext or more bytes are needed, and says
    /// how many bytes of plaintext are in `out`. Answers to the peer are left to be sent.
    ///
    /// # Errors
    ///
    /// What the peer did wrong; the alert that tells it so is left to be sent.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let mut copied = self.read_leftover(out);
        while copied < out.len() {
            match self.next_record(&mut out[copied..]) {
                Ok(0) => break,
                Ok(count) => copied += count,
                // Plaintext from before the fault is still good; the fault stays and is met
                // again by the next read.
                Err(_) if copied > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(copied)
    }

    /// Processes what was received, until the handshake is over or more bytes are needed.
    ///
    /// # Errors
    ///
    /// As of [`Session::read`].
    pub(super) fn advance(&mut self) -> Result<(), Error> {
        self.next_record(&mut []).map(drop)
    }

    /// Encrypts as much of `data` as the send buffer takes, and says how much that is.
    ///
    /// # Errors
    ///
    /// The library's, where the session is not open or its keys are used up.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<usize, Error> {
        let room = self.to_send.room().saturating_sub(SEND_RESERVE);
        let records = room / (RECORD_BYTES + RECORD_OVERHEAD);
        let data = &data[..data.len().min(records * RECORD_BYTES)];
        if data.is_empty() {
            return Ok(0);
        }
        self.with_writer(|writer, to_send| encrypt(writer, data, to_send))?;
        Ok(data.len())
    }

    /// Leaves the alert to be sent that tells the peer that nothing more comes.
    ///
    /// # Errors
    ///
    /// The library's, where the session is not open.
    pub(super) fn close(&mut self) -> Result<(), Error> {
        if self.close_queued {
            return Ok(());
        }
        self.close_queued = true;
        self.with_writer(|writer, to_send| {
            let space = to_send.spare(2 * RECORD_OVERHEAD + 64);
            let count = writer.queue_close_notify(space).map_err(refused)?;
            to_send.fill(count);
            Ok(())
        })
    }

    fn read_leftover(&mut self, out: &mut [u8]) -> usize {
        let rest = &self.plaintext[self.plaintext_read..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.plaintext_read += count;
        if self.plaintext_read == self.plaintext.len() {
            self.plaintext.clear();
            self.plaintext_read = 0;
        }
        count
    }

    /// Decrypts up to the next record with plaintext into `out`, what does not fit into
    /// `plaintext`; 0 where there is none.
    fn next_record(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        for _ in 0..MAX_ROUNDS {
            let mut reader = Reader {
                out: &mut *out,
                copied: 0,
                rest: &mut self.plaintext,
            };
            let input = self.received.filled_mut();
            let (discard, step) = match &mut self.side {
                Side::Client(connection) => step(
                    connection.process_tls_records(input),
                    &mut self.to_send,
                    &mut reader,
                ),
                Side::Server(connection) => step(
                    connection.process_tls_records(input),
                    &mut self.to_send,
                    &mut reader,
                ),
            };
            let copied = reader.copied;
            self.received.consume(discard);
            match step {
                Ok(Step::Again) => {}
                // An empty record, which TLS allows.
                Ok(Step::Plaintext) if copied == 0 && self.plaintext.is_empty() => {}
                Ok(Step::Plaintext) => {
                    self.quiet = 0;
                    return Ok(copied);
                }
                Ok(Step::Quiet(status)) => {
                    self.quiet = self.received.len();
                    if self.status != Status::PeerClosed {
                        self.status = status;
                    }
                    if status == Status::PeerClosed {
                        continue;
                    }
                    return Ok(0);
                }
                Err(error) => {
                    self.collect_alert();
                    return Err(error);
                }
            }
        }
        Err(Error::General("no progress".into()))
    }

    /// Lays the alert behind the ciphertext that the library wants sent after a failure.
    fn collect_alert(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let mut nowhere = Reader {
                out: &mut [],
                copied: 0,
                rest: &mut Vec::new(),
            };
            let input = self.received.filled_mut();
            let (discard, step) = match &mut self.side {
                Side::Client(connection) => step(
                    connection.process_tls_records(input),
                    &mut self.to_send,
                    &mut nowhere,
                ),
                Side::Server(connection) => step(
                    connection.process_tls_records(input),
                    &mut self.to_send,
                    &mut nowhere,
                ),
            };
            self.received.consume(discard);
            if !matches!(step, Ok(Step::Again)) {
                return;
            }
        }
    }

    /// Runs `write` in the state in which the library encrypts. Only the quiet part of what was
    /// received is shown to it, so that it has nothing to decrypt first.
    fn with_writer(
        &mut self,
        write: impl FnOnce(&mut dyn Writer, &mut Buffer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut write = Some(write);
        for _ in 0..MAX_ROUNDS {
            let input = &mut self.received.filled_mut()[..self.quiet];
            let (discard, done) = match &mut self.side {
                Side::Client(connection) => write_step(
                    connection.process_tls_records(input),
                    &mut self.to_send,
                    &mut write,
                ),
                Side::Server(connection) => write_step(
                    connection.process_tls_records(input),
                    &mut self.to_send,
                    &mut write,
                ),
            };
            self.received.consume(discard);
            self.quiet = self.quiet.saturating_sub(discard);
            if done? {
                return Ok(());
            }
        }
        Err(Error::General("no progress".into()))
    }
}

/// Where decrypted bytes go: as many as fit to the reader, the rest aside.
struct Reader<'a> {
    out: &'a mut [u8],
    copied: usize,
    rest: &'a mut Vec<u8>,
}

impl Reader<'_> {
    fn take(&mut self, payload: &[u8]) {
        let space = &mut self.out[self.copied..];
        let count = payload.len().min(space.len());
        space[..count].copy_from_slice(&payload[..count]);
        self.copied += count;
        self.rest.extend_from_slice(&payload[count..]);
    }
}

enum Step {
    /// The library has more to say.
    Again,
    /// A record was decrypted.
    Plaintext,
    /// Nothing complete is left in the input.
    Quiet(Status),
}

fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    to_send: &mut Buffer,
    reader: &mut Reader<'_>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { discard, state, .. } = status;
    let state = match state {
        Ok(state) => state,
        Err(error) => return (discard, Err(error)),
    };
    let step = match state {
        ConnectionState::ReadTraffic(traffic) => return read_traffic(traffic, discard, reader),
        ConnectionState::EncodeTlsData(data) => encode(data, to_send).map(|()| Step::Again),
        ConnectionState::TransmitTlsData(data) => {
            // The bytes are in the send buffer, from which nothing is lost but with the
            // connection, so for the library they are on their way.
            data.done();
            Ok(Step::Again)
        }
        ConnectionState::BlockedHandshake => Ok(Step::Quiet(Status::Handshaking)),
        ConnectionState::WriteTraffic(_) => Ok(Step::Quiet(Status::Open)),
        ConnectionState::PeerClosed => Ok(Step::Quiet(Status::PeerClosed)),
        ConnectionState::Closed => Ok(Step::Quiet(Status::Open)),
        // Early data is never accepted: the configuration does not offer it.
        _ => Err(Error::General("unexpected state".into())),
    };
    (discard, step)
}

fn read_traffic<Data>(
    mut traffic: ReadTraffic<'_, '_, Data>,
    mut discard: usize,
    reader: &mut Reader<'_>,
) -> (usize, Result<Step, Error>) {
    while let Some(record) = traffic.next_record() {
        match record {
            Ok(record) => {
                discard += record.discard;
                reader.take(record.payload);
            }
            Err(error) => return (discard, Err(error)),
        }
    }
    (discard, Ok(Step::Plaintext))
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, to_send: &mut Buffer) -> Result<(), Error> {
    let count = match data.encode(to_send.spare(0)) {
        Err(EncodeError::InsufficientSize(needed)) => {
            data.encode(to_send.spare(needed.required_size))
        }
        other => other,
    }
    .map_err(|_| Error::General("the send buffer is full of handshake".into()))?;
    to_send.fill(count);
    Ok(())
}

/// The writing side of either connection.
trait Writer {
    fn encrypt(&mut self, data: &[u8], out: &mut [u8]) -> Result<usize, EncryptError>;
    fn queue_close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError>;
}

impl<Data> Writer for WriteTraffic<'_, Data> {
    fn encrypt(&mut self, data: &[u8], out: &mut [u8]) -> Result<usize, EncryptError> {
        WriteTraffic::encrypt(self, data, out)
    }

    fn queue_close_notify(&mut self, out: &mut [u8]) -> Result<usize, EncryptError> {
        WriteTraffic::queue_close_notify(self, out)
    }
}

fn write_step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    to_send: &mut Buffer,
    write: &mut Option<impl FnOnce(&mut dyn Writer, &mut Buffer) -> Result<(), Error>>,
) -> (usize, Result<bool, Error>) {
    let UnbufferedStatus { discard, state, .. } = status;
    let done = match state {
        Ok(ConnectionState::WriteTraffic(mut writer)) => match write.take() {
            Some(write) => write(&mut writer, to_send).map(|()| true),
            None => Ok(true),
        },
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, to_send).map(|()| false),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(false)
        }
        Ok(ConnectionState::PeerClosed) => Ok(false),
        // Both sides have said that they send no more.
        Ok(ConnectionState::Closed) => Err(Error::EncryptError),
        Ok(ConnectionState::BlockedHandshake) => Err(Error::HandshakeNotComplete),
        Ok(_) => Err(Error::General("unexpected state".into())),
        Err(error) => Err(error),
    };
    (discard, done)
}

fn encrypt(writer: &mut dyn Writer, data: &[u8], to_send: &mut Buffer) -> Result<(), Error> {
    let records = data.len().div_ceil(RECORD_BYTES);
    let needed = data.len() + records * RECORD_OVERHEAD;
    let count = match writer.encrypt(data, to_send.spare(needed)) {
        // Handshake messages, such as an update of the keys, go first and need room too.
        Err(EncryptError::InsufficientSize(more)) => {
            writer.encrypt(data, to_send.spare(more.required_size))
        }
        other => other,
    }
    .map_err(refused)?;
    to_send.fill(count);
    Ok(())
}

fn refused(error: EncryptError) -> Error {
    match error {
        EncryptError::EncryptExhausted => Error::EncryptError,
        other => Error::General(other.to_string()),
    }
}
