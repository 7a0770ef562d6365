//! Words of a line that a firewall tool prints: separated by blanks, with double quotes around those that have some.

/// A word, and whether it stood in quotes: then it is no keyword.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) quoted: bool,
}

impl Word {
    /// Its text, if it may be a keyword.
    pub(super) fn key(&self) -> &str {
        if self.quoted { "" } else { &self.text }
    }
}

/// The words of a line as nft prints it: braces and commas at a word's end are words of their own.
pub(super) fn nft(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    for word in split(line, false) {
        let separates = !word.quoted && word.text.len() > 1 && word.text.ends_with([',', ';']);
        if separates {
            let (text, end) = word.text.split_at(word.text.len() - 1);
            words.push(Word { text: text.to_owned(), quoted: false });
            words.push(Word { text: end.to_owned(), quoted: false });
        } else {
            words.push(word);
        }
    }
    words
}

/// The words of a line of `iptables-save`, where a backslash takes the next character as it is.
pub(super) fn xtables(line: &str) -> Vec<Word> {
    split(line, true)
}

fn split(line: &str, escapes: bool) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut inside = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                inside = !inside;
                word.get_or_insert_with(empty).quoted = true;
            }
            '\\' if escapes && inside => {
                if let Some(next) = characters.next() {
                    word.get_or_insert_with(empty).text.push(next);
                }
            }
            // What follows a quoted word at once is not part of it: `"eth0",`.
            ',' | ';' if !inside && !escapes && word.as_ref().is_some_and(|word| word.quoted) => {
                words.extend(word.take());
                words.push(Word { text: character.to_string(), quoted: false });
            }
            _ if character.is_whitespace() && !inside => words.extend(word.take()),
            _ => word.get_or_insert_with(empty).text.push(character),
        }
    }
    words.extend(word);
    words
}

fn empty() -> Word {
    Word { text: String::new(), quoted: false }
}

/// Braces that a line opens and does not close, outside of quotes and before a comment.
pub(super) fn open_braces(line: &str) -> i32 {
    let mut inside = false;
    let mut open = 0;
    for character in line.chars() {
        match character {
            '"' => inside = !inside,
            '#' if !inside => break,
            '{' if !inside => open += 1,
            '}' if !inside => open -= 1,
            _ => {}
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[Word]) -> Vec<&str> {
        words.iter().map(|word| word.text.as_str()).collect()
    }

    #[test]
    fn quoted_words_are_no_keywords() {
        let words = nft(r#"iifname "a b" log prefix "drop " drop"#);
        assert_eq!(texts(&words), ["iifname", "a b", "log", "prefix", "drop ", "drop"]);
        let keys: Vec<_> = words.iter().map(Word::key).collect();
        assert_eq!(keys, ["iifname", "", "log", "prefix", "", "drop"]);
    }

    #[test]
    fn commas_and_semicolons_end_words() {
        assert_eq!(
            texts(&nft(r#"{ 22, "eth0", 80 : drop }"#)),
            ["{", "22", ",", "eth0", ",", "80", ":", "drop", "}"]
        );
        assert_eq!(texts(&nft("policy drop;")), ["policy", "drop", ";"]);
        assert_eq!(texts(&nft("ct state established,related")), ["ct", "state", "established,related"]);
    }

    #[test]
    fn xtables_escapes() {
        let words = xtables(r#"--comment "it\'s \"mine\" -p" -j DROP"#);
        assert_eq!(texts(&words), ["--comment", "it's \"mine\" -p", "-j", "DROP"]);
    }

    #[test]
    fn braces() {
        assert_eq!(open_braces("chain x { # handle { 3"), 1);
        assert_eq!(open_braces(r#"comment "{ {" { a } }"#), -1);
    }
}
