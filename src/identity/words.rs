//! Bits as words of the BIP 39 English list: 2048 words, 11 bits a word.

use bip39::Language;

/// The first `count` words of `bytes`, most significant bit first, single spaces between them; fewer when there are not so many bits.
pub(crate) fn of(bytes: &[u8], count: usize) -> String {
    let list = Language::English.word_list();
    let bit = |at: usize| usize::from(bytes[at / 8] >> (7 - at % 8) & 1);
    let number = |word: usize| (11 * word..11 * (word + 1)).fold(0, |number, at| number << 1 | bit(at));
    let words: Vec<&str> = (0..count.min(bytes.len() * 8 / 11)).map(|word| list[number(word)]).collect();
    words.join(" ")
}

/// What somebody typed, in lower case and without the spaces, hyphens or colons between its parts.
pub(crate) fn typed(text: &str) -> Vec<String> {
    text.split(|c: char| c.is_whitespace() || c == '-' || c == ':')
        .filter(|part| !part.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Whether it is a word of the list.
pub(crate) fn is_listed(word: &str) -> bool {
    Language::English.find_word(word).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_read_in_order() {
        assert_eq!(of(&[0; 32], 23), ["abandon"; 23].join(" "));
        assert_eq!(of(&[0xff; 32], 24), ["zoo"; 23].join(" "), "256 bits are 23 words");
        // Numbers 1, 2, 2047: ability, able, zoo.
        assert_eq!(of(&[0b0000_0000, 0b0010_0000, 0b0000_1011, 0b1111_1111, 0b1000_0000], 3), "ability able zoo");
        assert_eq!(of(&[1], 1), "");
    }

    #[test]
    fn what_is_typed_is_taken_apart() {
        assert_eq!(typed(" Zoo-ability:\nABLE "), ["zoo", "ability", "able"]);
        assert!(is_listed("zoo") && !is_listed("zo") && !is_listed("Zoo"));
    }
}
