use std::io::Write as _;

use super::*;

fn names(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_file_has_its_name_only_when_its_content_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let created = create(&path, |file| {
        file.write_all(b"con")?;
        assert!(!path.exists());
        file.write_all(b"tent")?;
        Ok(7)
    });
    assert_eq!(created.unwrap(), 7);
    assert_eq!(fs::read(&path).unwrap(), b"content");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, MODE);
    assert_eq!(names(folder.path()), 1);
}

#[test]
fn a_call_that_fails_leaves_nothing_and_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let failed = create(&path, |file| {
        file.write_all(b"con")?;
        Err::<(), _>(io::ErrorKind::StorageFull.into())
    });
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(names(folder.path()), 0);
    create(&path, |file| file.write_all(b"content")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"content");
}

#[test]
fn a_file_that_exists_is_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, b"old").unwrap();
    let refused = create(&path, |file| file.write_all(b"new"));
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), 1);
}
