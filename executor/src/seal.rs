//! Seals frames, so that what lies in an engine's log is ciphertext and a frame that a tool wrote does not open.
//!
//! ChaCha20-Poly1305 (RFC 8439) under the invocation's own key. The nonce is the direction and the position of the frame in its
//! direction, and never travels: a frame that was replayed, moved, dropped or turned back opens under no nonce the receiver tries.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce, Tag};
use thiserror::Error;

use crate::wire::WireKey;

/// How many bytes sealing adds to a frame.
pub const OVERHEAD: usize = 16;

/// Which way a frame goes. Its value is part of the nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// From the gateway to the executor.
    ToExecutor = 1,
    /// From the executor to the gateway.
    FromExecutor = 2,
    /// From the gateway to the executor, on the stream for bulk.
    BulkToExecutor = 3,
    /// From the executor to the gateway, on the stream for bulk.
    BulkFromExecutor = 4,
}

/// The frame did not open, or no more frames can be sealed. Says nothing of why: there is nothing a peer should learn from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a frame is forged, repeated, out of order or under another key")]
pub struct SealError;

/// One direction under one key: the sender's half or the receiver's. Both count frames from 0.
pub struct Seal {
    cipher: ChaCha20Poly1305,
    direction: Direction,
    /// The position of the next frame; `None` once a frame did not open: nothing after it is trusted.
    next: Option<u64>,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").field("direction", &self.direction).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Seal {
    /// A half that has seen no frame.
    pub fn new(key: &WireKey, direction: Direction) -> Self {
        Self { cipher: ChaCha20Poly1305::new(&Key::from(key.0)), direction, next: Some(0) }
    }

    /// Seals `body` in place, as the next frame; what is returned belongs behind it.
    ///
    /// # Errors
    /// When the counter is used up.
    pub fn seal(&mut self, body: &mut [u8]) -> Result<[u8; OVERHEAD], SealError> {
        let nonce = self.advance()?;
        let tag = self.cipher.encrypt_inout_detached(&nonce, b"", body.into()).map_err(|_| SealError)?;
        Ok(tag.into())
    }

    /// Opens `body` in place, if it is the next frame: what was sealed. After one failure nothing opens any more.
    ///
    /// # Errors
    /// When `body` is anything but the next frame that the peer sealed.
    pub fn open<'a>(&mut self, body: &'a mut [u8]) -> Result<&'a [u8], SealError> {
        let nonce = self.advance()?;
        let opened = body.split_last_chunk_mut::<OVERHEAD>().and_then(|(body, tag)| {
            self.cipher.decrypt_inout_detached(&nonce, b"", body.into(), &Tag::from(*tag)).ok()?;
            Some(&*body)
        });
        if opened.is_none() {
            self.next = None;
        }
        opened.ok_or(SealError)
    }

    fn advance(&mut self) -> Result<Nonce, SealError> {
        let position = self.next.take().ok_or(SealError)?;
        self.next = position.checked_add(1);
        let mut nonce = [0; 12];
        nonce[0] = self.direction as u8;
        nonce[4..].copy_from_slice(&position.to_be_bytes());
        Ok(Nonce::from(nonce))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair() -> (Seal, Seal) {
        let key = WireKey::generate().unwrap();
        (Seal::new(&key, Direction::ToExecutor), Seal::new(&key, Direction::ToExecutor))
    }

    fn sealed(seal: &mut Seal, text: &[u8]) -> Vec<u8> {
        let mut body = text.to_vec();
        let tag = seal.seal(&mut body).unwrap();
        [&body[..], &tag].concat()
    }

    #[test]
    fn frames_open_once_and_in_order_only() {
        let (mut sender, mut receiver) = pair();
        let (mut first, second) = (sealed(&mut sender, b"one"), sealed(&mut sender, b"two"));
        let replay = first.clone();
        assert_eq!(receiver.open(&mut first).unwrap(), b"one");
        assert_eq!(receiver.open(&mut replay.clone()), Err(SealError));
        // Closed for good, the honest frame included.
        assert_eq!(receiver.open(&mut second.clone()), Err(SealError));

        let (mut sender, mut receiver) = pair();
        let (_dropped, mut second) = (sealed(&mut sender, b"one"), sealed(&mut sender, b"two"));
        assert_eq!(receiver.open(&mut second), Err(SealError));
    }

    #[test]
    fn a_frame_cannot_be_turned_back_on_its_sender_or_opened_with_another_key() {
        let key = WireKey::generate().unwrap();
        let mut body = sealed(&mut Seal::new(&key, Direction::ToExecutor), b"cancel");
        assert_eq!(Seal::new(&key, Direction::FromExecutor).open(&mut body.clone()), Err(SealError));
        let other = WireKey::generate().unwrap();
        assert_eq!(Seal::new(&other, Direction::ToExecutor).open(&mut body), Err(SealError));
    }

    #[test]
    fn the_counter_does_not_wrap() {
        let (mut sender, _) = pair();
        sender.next = Some(u64::MAX);
        sealed(&mut sender, b"last");
        assert_eq!(sender.seal(&mut b"one more".to_vec()), Err(SealError));
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_shows_nothing(text in prop::collection::vec(any::<u8>(), 0..2048)) {
            let (mut sender, mut receiver) = pair();
            let mut body = sealed(&mut sender, &text);
            prop_assert_eq!(body.len(), text.len() + OVERHEAD);
            prop_assert!(text.len() < 8 || !body.windows(text.len()).any(|w| w == text));
            prop_assert_eq!(receiver.open(&mut body).unwrap(), text);
        }

        #[test]
        fn any_flipped_bit_is_refused(text in prop::collection::vec(any::<u8>(), 0..256), at in any::<prop::sample::Index>(), bit in 0..8) {
            let (mut sender, mut receiver) = pair();
            let mut body = sealed(&mut sender, &text);
            let at = at.index(body.len());
            body[at] ^= 1u8 << bit;
            prop_assert_eq!(receiver.open(&mut body), Err(SealError));
        }

        #[test]
        fn any_truncation_is_refused(text in prop::collection::vec(any::<u8>(), 0..256), at in any::<prop::sample::Index>()) {
            let (mut sender, mut receiver) = pair();
            let mut body = sealed(&mut sender, &text);
            body.truncate(at.index(body.len()));
            prop_assert_eq!(receiver.open(&mut body), Err(SealError));
        }
    }
}
