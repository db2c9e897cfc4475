//! The page that a technician sends to somebody else.

use super::*;

fn report(words: &[&OsStr]) -> Output {
    varved([OsStr::new("report")].into_iter().chain(words.iter().copied()))
}

/// A page of a running device has its series and its health; that of the file alone, or of what was pulled, has the series. It is one
/// small file that asks for nothing from anywhere, and replaces another only when told to.
#[test]
fn a_report_is_one_small_page() {
    let dir = tempfile::tempdir().unwrap();
    let site = recorded(dir.path());
    let (page, pulled) = (dir.path().join("page.html"), dir.path().join("pulled.db"));
    let device = site.run();
    said(&report(&["--config".as_ref(), site.config.as_ref(), "-o".as_ref(), page.as_ref()]));
    let text_of_page = std::fs::read_to_string(&page).unwrap();
    assert!(text_of_page.contains("<th>software<td>varved ") && text_of_page.contains("<th>a day"), "{text_of_page}");
    assert_eq!(device.stop(), Some(0));
    let series = site.count("series") as usize;
    assert_eq!(text_of_page.matches("<svg").count(), series);
    assert!(
        text_of_page.contains("plant/state,s=1")
            && text_of_page.contains("9223372036854775808")
            && text_of_page.len() < 200_000
    );
    assert!(!text_of_page.contains("http:") && !text_of_page.contains("https:") && !text_of_page.contains("<script"));

    said(&varved(["pull".as_ref(), "--db".as_ref(), site.db().as_os_str(), pulled.as_os_str()]));
    let out = said(&report(&["--db".as_ref(), pulled.as_ref(), "-o".as_ref(), "-".as_ref()]));
    assert_eq!(out.matches("<svg").count(), series);
    let words: [&OsStr; 4] = ["--db".as_ref(), pulled.as_ref(), "-o".as_ref(), page.as_ref()];
    let (code, why) = told(&report(&words));
    assert!(code == 64 && why.contains("--force"), "{why}");
    said(&report(&[&words[..], &["--force".as_ref()]].concat()));

    let (code, why) = told(&report(&["--db".as_ref(), "/nonexistent.db".as_ref(), "-o".as_ref(), page.as_ref()]));
    assert!(code == 69 && why.contains("no such file"), "{why}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4, "nothing is left beside");
}
