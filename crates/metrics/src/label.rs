//! Labels: sets of them as structs, and their values.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelKey, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder};

/// Declares a set of labels: a struct whose fields are the labels' names. The types of the fields are [`Text`], enums of
/// [`words!`](crate::words) and numbers.
///
/// ```
/// evroc_metrics::labels! {
///     /// A machine.
///     pub struct Machine {
///         host: evroc_metrics::Text,
///     }
/// }
/// ```
#[macro_export]
macro_rules! labels {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$about:meta])* $seen:vis $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        $vis struct $name { $($(#[$about])* $seen $field: $type),* }

        impl $crate::EncodeLabelSet for $name {
            fn encode(&self, encoder: &mut $crate::LabelSetEncoder<'_>) -> ::std::fmt::Result {
                $($crate::encode_label(encoder, stringify!($field), &self.$field)?;)*
                Ok(())
            }
        }
    };
}

/// Declares an enum whose variants are the possible values of a label.
///
/// ```
/// evroc_metrics::words! {
///     /// The end of something.
///     pub enum Outcome {
///         /// As it should be.
///         Good = "good",
///     }
/// }
/// assert_eq!(Outcome::Good.word(), "good");
/// ```
#[macro_export]
macro_rules! words {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$about])* $variant),* }

        impl $name {
            /// Returns the label's value.
            $vis const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl $crate::EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut $crate::LabelValueEncoder<'_>) -> ::std::fmt::Result {
                $crate::EncodeLabelValue::encode(&self.word(), encoder)
            }
        }
    };
}

/// Writes one label; for [`labels!`](crate::labels).
#[doc(hidden)]
pub fn encode_label(encoder: &mut LabelSetEncoder<'_>, name: &str, value: &impl EncodeLabelValue) -> fmt::Result {
    let mut label = encoder.encode_label();
    let mut key = label.encode_label_key()?;
    EncodeLabelKey::encode(&name, &mut key)?;
    let mut written = key.encode_label_value()?;
    value.encode(&mut written)?;
    written.finish()
}

/// A name that exists: of an object, a kind, a controller. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Arc<str>);

impl Text {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}
