//! Answers of a card that has lost its mind, for whoever parses them.
//!
//! Of three answers about one is noise with no status word, one is noise that claims success or more to come, and one is
//! the right answer with a byte changed, bytes lost or bytes added: that gets a client past its first commands.

/// A source of nonsense; the same seed gives the same nonsense. SplitMix64.
pub struct Garbage(u64);

impl Garbage {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Mostly short, sometimes longer than any answer should be.
    fn noise(&mut self) -> Vec<u8> {
        let limit = [4, 40, 300, 5000][self.below(4)];
        let length = self.below(limit);
        (0..length).map(|_| self.byte()).collect()
    }

    /// What to answer instead of `right`. Never nothing: vpcd, and pcscd with it, would wait for ever for the bytes of an empty answer.
    pub fn answer(&mut self, right: &[u8]) -> Vec<u8> {
        let answer = self.perhaps_empty(right);
        if answer.is_empty() { vec![self.byte()] } else { answer }
    }

    fn perhaps_empty(&mut self, right: &[u8]) -> Vec<u8> {
        match self.below(3) {
            0 => self.noise(),
            1 => {
                let status =
                    [[0x90, 0x00], [0x61, self.byte()], [0x6C, self.byte()], [0x63, self.byte()]][self.below(4)];
                let mut answer = self.noise();
                answer.extend(status);
                answer
            }
            _ => self.spoil(right),
        }
    }

    fn spoil(&mut self, right: &[u8]) -> Vec<u8> {
        let mut answer = right.to_vec();
        let at = self.below(right.len() + 1);
        match (self.below(3), answer.get_mut(at)) {
            (0, Some(byte)) => *byte = self.byte(),
            (1, Some(_)) => drop(answer.remove(at)),
            _ => {
                let noise = self.noise();
                answer.splice(at..at, noise);
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence_and_an_answer_fits_the_wire() {
        let (mut one, mut two, mut other) = (Garbage::new(7), Garbage::new(7), Garbage::new(8));
        let right = [0x7C, 2, 0x82, 0, 0x90, 0];
        let mut differ = false;
        for _ in 0..10_000 {
            let answer = one.answer(&right);
            assert_eq!(answer, two.answer(&right));
            assert!((1..6000).contains(&answer.len()));
            differ |= answer != other.answer(&right);
        }
        assert!(differ);
    }
}
