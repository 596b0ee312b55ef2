//! A TLS session without IO: converts ciphertext to plaintext and back.
//!
//! It uses the unbuffered API of `rustls`. Received records are decrypted in
//! place in a buffer that is filled by large socket reads. Records to send are
//! appended to a second buffer that one socket write empties. Both buffers are
//! bounded, so that a peer that does not read stops the writer.

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

use crate::buffer::{Buffer, MIN_BYTES, SMALL_BYTES};

/// Limit of received ciphertext that was not decrypted, in bytes.
///
/// One socket read returns as much as is available, and the data is still in a
/// second-level cache when it is decrypted. Sizes from 64 to 256 KiB had the
/// same throughput in measurements.
const RECEIVE_LIMIT: usize = 128 * 1024;

/// Limit of ciphertext that waits for the socket, in bytes. It bounds the
/// memory of a peer that does not read.
const SEND_LIMIT: usize = 96 * 1024;

/// Amount of ciphertext at which a socket write starts without a flush, in
/// bytes: four records. 64 and 128 KiB had the same throughput in measurements.
const SEND_AT: usize = 64 * 1024;

/// Part of the send buffer that application data does not use, in bytes. It is
/// reserved for responses to key updates of the peer, of which the library
/// accepts 32 in sequence with 27 bytes each, and for the last alert.
const SEND_RESERVE: usize = 2 * 1024;

/// Largest plaintext of one record, by RFC 8446, section 5.1.
const RECORD_BYTES: usize = 16 * 1024;

/// Overhead of TLS 1.3 per record: 5 bytes of header, one of content type, 16
/// of tag.
const RECORD_OVERHEAD: usize = 22;

/// Largest number of consecutive calls that only advance the handshake. A
/// flight has fewer messages; the limit prevents an endless loop on a defect in
/// the library.
const MAX_ROUNDS: usize = 64;

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// State of a session after it processed all input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The handshake needs more bytes from the peer.
    Handshaking,
    /// Application data can be sent and received.
    Open,
    /// The peer has announced the end of its data.
    PeerClosed,
}

/// One TLS session, client or server.
pub(super) struct Session {
    side: Side,
    received: Buffer,
    to_send: Buffer,
    /// Plaintext of the last record that did not fit into the reader's buffer.
    plaintext: Vec<u8>,
    plaintext_read: usize,
    /// Number of bytes at the start of `received` that contain no complete
    /// record. The library can process them again without decrypting a record.
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

    /// Returns the negotiated parameters.
    pub(super) fn common(&self) -> &CommonState {
        match &self.side {
            Side::Client(connection) => connection,
            Side::Server(connection) => connection,
        }
    }

    pub(super) fn status(&self) -> Status {
        self.status
    }

    /// Returns `true` if the session has no receive buffer. It should then be
    /// given at most [`SMALL_BYTES`] with [`Session::receive`], which were read
    /// into other memory.
    pub(super) fn is_buffer_released(&mut self) -> bool {
        let is_released = self.received.is_released();
        if is_released && self.plaintext.is_empty() {
            self.plaintext = Vec::new();
        }
        is_released
    }

    /// Appends received bytes, at most [`SMALL_BYTES`].
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.received.append(bytes);
        if bytes.len() >= SMALL_BYTES {
            // More has probably arrived, and the next read is a large one.
            self.received.grow();
        }
    }

    /// Returns the buffer for the next socket read. It is empty only if the
    /// peer splits a handshake message into more records than the buffer can
    /// hold.
    pub(super) fn receive_space(&mut self) -> &mut [u8] {
        // Less than one record remains, so the copy is small compared with the
        // read that follows.
        self.received.compact();
        self.received.spare(MIN_BYTES)
    }

    /// Reports that a read returned `count` bytes of `offered` bytes of space.
    pub(super) fn received(&mut self, count: usize, offered: usize) {
        self.received.fill(count);
        self.received.used(count);
        if count == offered {
            self.received.grow();
        }
    }

    /// Returns the sizes of the buffers, in bytes: received, plaintext, to send.
    #[cfg(test)]
    pub(super) fn allocations(&self) -> [usize; 3] {
        let [received, to_send] = [&self.received, &self.to_send].map(Buffer::allocated);
        [received, self.plaintext.capacity(), to_send]
    }

    /// Returns the ciphertext for the socket.
    pub(super) fn to_send(&self) -> &[u8] {
        self.to_send.filled()
    }

    /// Removes `count` bytes of ciphertext that were sent.
    pub(super) fn sent(&mut self, count: usize) {
        self.to_send.consume(count);
        self.to_send.used(count);
    }

    /// Returns `true` if there is enough ciphertext for an efficient socket
    /// write.
    pub(super) fn wants_send(&self) -> bool {
        self.to_send.len() >= SEND_AT
    }

    /// Processes received data until `out` contains plaintext or more data is
    /// needed. Returns the number of plaintext bytes in `out`. Responses to the
    /// peer are added to the send buffer.
    ///
    /// # Errors
    ///
    /// The protocol violation of the peer. The alert for the peer is added to
    /// the send buffer.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let mut copied = self.read_leftover(out);
        while copied < out.len() {
            match self.next_record(&mut out[copied..]) {
                Ok(0) => break,
                Ok(count) => copied += count,
                // Plaintext before the failure is valid. The next read reports
                // the failure again.
                Err(_) if copied > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(copied)
    }

    /// Processes received data until the handshake is complete or more data is
    /// needed.
    ///
    /// # Errors
    ///
    /// Those of [`Session::read`].
    pub(super) fn advance(&mut self) -> Result<(), Error> {
        self.next_record(&mut []).map(drop)
    }

    /// Encrypts as much of `data` as fits into the send buffer and returns the
    /// number of bytes.
    ///
    /// # Errors
    ///
    /// The error of the library if the session is not open or its keys are
    /// exhausted.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<usize, Error> {
        let space = self.to_send.space().saturating_sub(SEND_RESERVE);
        let records = space / (RECORD_BYTES + RECORD_OVERHEAD);
        let data = &data[..data.len().min(records * RECORD_BYTES)];
        if data.is_empty() {
            return Ok(0);
        }
        self.with_writer(|writer, to_send| encrypt(writer, data, to_send))?;
        Ok(data.len())
    }

    /// Queues the alert that announces the end of the data to the peer.
    ///
    /// # Errors
    ///
    /// The error of the library if the session is not open.
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
            if self.plaintext.capacity() <= SMALL_BYTES {
                self.plaintext = Vec::new();
            }
        }
        count
    }

    /// Decrypts the next record with plaintext into `out`. Plaintext that does
    /// not fit is stored in `plaintext`. Returns 0 if there is no complete
    /// record.
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

    /// Appends the alert of the library after a failure to the send buffer. It
    /// is a single record and requested once, because the library would report
    /// the same failure again after it.
    fn collect_alert(&mut self) {
        let mut nowhere = Reader {
            out: &mut [],
            copied: 0,
            rest: &mut Vec::new(),
        };
        let input = self.received.filled_mut();
        let (discard, _) = match &mut self.side {
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
    }

    /// Calls `write` when the library is able to encrypt. The library gets only
    /// the quiet part of the received data, so that it has no record to decrypt
    /// first.
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

/// Destination of decrypted bytes: `out` as far as they fit, otherwise `rest`.
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
    /// The library has more states to process.
    Again,
    /// A record was decrypted.
    Plaintext,
    /// The input contains no further complete record.
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
            // The bytes are in the send buffer, which is lost only together
            // with the connection. For the library they are sent.
            data.done();
            Ok(Step::Again)
        }
        ConnectionState::BlockedHandshake => Ok(Step::Quiet(Status::Handshaking)),
        ConnectionState::WriteTraffic(_) => Ok(Step::Quiet(Status::Open)),
        ConnectionState::PeerClosed => Ok(Step::Quiet(Status::PeerClosed)),
        ConnectionState::Closed => Ok(Step::Quiet(Status::Open)),
        // Early data cannot occur: the configuration does not offer it.
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
    .map_err(|_| Error::General("handshake messages exceed the send buffer".into()))?;
    to_send.fill(count);
    Ok(())
}

/// The encrypting side of a client or server connection.
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
        // Both sides have announced the end of their data.
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
        // Handshake messages such as a key update precede the data and need
        // space as well.
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
