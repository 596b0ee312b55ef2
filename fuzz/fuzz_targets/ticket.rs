//! Tickets: text and fields. A ticket has one encoding.
#![no_main]

use calimero_network_blob::ticket::Ticket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(ticket) = Ticket::from_bytes(input) {
        assert_eq!(ticket.to_bytes(), input);
        let text = ticket.to_string();
        assert_eq!(
            text.parse::<Ticket>().expect("what is written is read"),
            ticket
        );
    }
    if let Ok(text) = str::from_utf8(input)
        && let Ok(ticket) = text.parse::<Ticket>()
    {
        assert_eq!(ticket.to_string(), text.trim().to_ascii_lowercase());
    }
});
