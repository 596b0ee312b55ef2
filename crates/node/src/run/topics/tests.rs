use super::*;

fn read(input: impl BufRead, longest: usize) -> Vec<Input> {
    let (sender, mut lines) = mpsc::channel(LINES_AHEAD);
    read_lines(input, &sender, longest);
    drop(sender);
    std::iter::from_fn(|| lines.blocking_recv()).collect()
}

#[test]
fn lines_are_messages_and_longer_ones_are_refused_as_a_whole() {
    let lines = read(&b"ab\n\nabcd\nabcdef\nabcde\nend"[..], 4);
    let lines = lines.into_iter().map(|line| match line {
        Input::Message(line) => Ok(String::from_utf8(line).unwrap()),
        Input::TooLong { size } => Err(size),
        Input::Failed(error) => panic!("{error}"),
    });
    let message = |text: &str| Ok(text.to_owned());
    let expected = [
        message("ab"),
        message(""),
        message("abcd"),
        Err(6),
        Err(5),
        message("end"),
    ];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}

#[test]
fn a_read_that_fails_is_not_the_end_of_the_input() {
    // A folder can be opened and not be read.
    let folder = tempfile::tempdir().unwrap();
    let folder = std::fs::File::open(folder.path()).unwrap();
    let input = (&b"first\nsecond"[..]).chain(io::BufReader::new(folder));
    let lines = read(io::BufReader::with_capacity(8, input), 100);
    let [Input::Message(first), Input::Failed(error)] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(first, b"first");
    assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
}
