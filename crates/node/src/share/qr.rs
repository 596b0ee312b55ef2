//! Tickets as QR codes on a terminal.

use qrcode::{EcLevel, QrCode, types::Color};

/// Light modules around the code, as the standard asks for.
const MARGIN: usize = 4;

/// Black on white, whatever the colours of the terminal are.
const COLOURS: &str = "\x1b[38;5;16;48;5;231m";
const PLAIN: &str = "\x1b[0m";

/// Draws a text as a QR code, two modules in each character. `None` for a text that is too long.
pub(super) fn draw(text: &str) -> Option<String> {
    // Upper case is denser in a QR code.
    let text = text.to_ascii_uppercase();
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let width = code.width();
    let modules = code.to_colors();
    let is_dark = |row: usize, column: usize| {
        let inside = MARGIN..MARGIN + width;
        let index = || (row - MARGIN) * width + column - MARGIN;
        inside.contains(&row)
            && inside.contains(&column)
            && modules.get(index()) == Some(&Color::Dark)
    };
    let mut drawn = String::new();
    for row in (0..width + 2 * MARGIN).step_by(2) {
        drawn.push_str(COLOURS);
        for column in 0..width + 2 * MARGIN {
            drawn.push(match (is_dark(row, column), is_dark(row + 1, column)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        drawn.push_str(PLAIN);
        drawn.push('\n');
    }
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_are_the_modules_of_the_code() {
        let text = "calnetaebagbafaydqqcikbmga2dqpcaireeyuculbogazdinryhi6d4";
        let drawn = draw(text).unwrap();
        let code = QrCode::with_error_correction_level(text.to_uppercase(), EcLevel::L).unwrap();
        let mut rows: Vec<Vec<bool>> = Vec::new();
        for line in drawn.lines() {
            let line = line.strip_prefix(COLOURS).unwrap();
            let line = line.strip_suffix(PLAIN).unwrap();
            rows.push(line.chars().map(|c| c == '█' || c == '▀').collect());
            rows.push(line.chars().map(|c| c == '█' || c == '▄').collect());
        }
        let width = code.width();
        // An odd number of rows leaves half of the last line light.
        assert!(rows.len() >= width + 2 * MARGIN);
        let mut dark = 0;
        for (row, modules) in rows.iter().enumerate() {
            assert_eq!(modules.len(), width + 2 * MARGIN);
            for (column, is_dark) in modules.iter().enumerate() {
                let inside = |at: usize| (MARGIN..MARGIN + width).contains(&at);
                let expected = inside(row)
                    && inside(column)
                    && code[(column - MARGIN, row - MARGIN)] == Color::Dark;
                assert_eq!(*is_dark, expected, "{row} {column}");
                dark += usize::from(*is_dark);
            }
        }
        assert!(dark > width);
    }

    #[test]
    fn the_longest_ticket_fits_and_more_does_not() {
        let longest = "a".repeat(calimero_network::blob::ticket::MAX_TICKET_CHARS);
        assert!(draw(&longest).is_some());
        assert!(draw(&"a".repeat(5000)).is_none());
    }
}
