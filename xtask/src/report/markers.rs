//! Generated parts of hand-written documents, between a pair of comments.
//!
//! `<!-- begin NAME -->` and `<!-- end NAME -->` each stand on a line of their own; what lies between them belongs to
//! the program.

use anyhow::{Result, bail};

/// The document with the part called `name` replaced.
///
/// # Errors
/// When one of the two comments is missing, or they stand in the wrong order.
pub(crate) fn replace(document: &str, name: &str, content: &str) -> Result<String> {
    let (begin, end) = (
        format!("<!-- begin {name} -->\n"),
        format!("<!-- end {name} -->"),
    );
    let (Some(start), Some(stop)) = (document.find(&begin), document.find(&end)) else {
        bail!(
            "the comments `{}` and `{end}` are not both there",
            begin.trim()
        );
    };
    let start = start + begin.len();
    if stop < start {
        bail!("`{end}` stands before `{}`", begin.trim());
    }
    Ok(format!(
        "{}\n{}\n\n{}",
        &document[..start],
        content.trim(),
        &document[stop..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_between_the_comments_changes_and_twice_is_once() {
        let document = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n";
        let once = replace(document, "x", "new\n").unwrap();
        assert_eq!(once, "a\n<!-- begin x -->\n\nnew\n\n<!-- end x -->\nb\n");
        assert_eq!(replace(&once, "x", "new").unwrap(), once);
        assert!(replace(document, "y", "").is_err());
        assert!(replace("<!-- end x --><!-- begin x -->\n", "x", "").is_err());
    }
}
