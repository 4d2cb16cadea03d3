//! Tokens of a label selector.

/// One token. `in` and `notin` are words where a key or value is expected, and operators after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Less,
    NotEquals,
    Open,
    In,
    NotIn,
    Word,
    Unknown,
}

const SPECIAL: &str = "=!(),<>";

fn operator(text: &str) -> Option<Token> {
    Some(match text {
        ")" => Token::Close,
        "," => Token::Comma,
        "!" => Token::Not,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::Greater,
        "<" => Token::Less,
        "!=" => Token::NotEquals,
        "(" => Token::Open,
        _ => return None,
    })
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// All tokens with their text; the last is [`Token::End`].
pub(super) fn tokens(text: &str) -> Vec<(Token, String)> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        if is_space(c) {
            i += 1;
        } else if SPECIAL.contains(c) {
            i = special(&chars, i, &mut out);
        } else {
            let end =
                (i..chars.len()).find(|j| is_space(chars[*j]) || SPECIAL.contains(chars[*j])).unwrap_or(chars.len());
            let word: String = chars[i..end].iter().collect();
            let token = match word.as_str() {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Word,
            };
            out.push((token, word));
            i = end;
        }
    }
    out.push((Token::End, String::new()));
    out
}

/// Reads the longest operator at `start`; text without a meaning (like `=!`) becomes one unknown token.
fn special(chars: &[char], start: usize, out: &mut Vec<(Token, String)>) -> usize {
    let mut text = String::new();
    let mut last: Option<(Token, usize)> = None;
    let mut i = start;
    while i < chars.len() && SPECIAL.contains(chars[i]) {
        text.push(chars[i]);
        match operator(&text) {
            Some(token) => last = Some((token, i + 1)),
            None if last.is_some() => break,
            None => {}
        }
        i += 1;
    }
    match last {
        Some((token, end)) => {
            out.push((token, chars[start..end].iter().collect()));
            end
        }
        None => {
            out.push((Token::Unknown, text));
            i
        }
    }
}
