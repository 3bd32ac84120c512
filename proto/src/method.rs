//! What a method is: one type per method that carries its name, parameters, result, errors and access class.

use crate::error::Kind;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};

/// What a call may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Answers from a snapshot or from disk and changes nothing.
    Read,
    /// Changes something; accepts `request_id`.
    Mutate,
    /// Changes something and may take long; accepts `request_id` and `detach`.
    Operation,
    /// Opens a stream of notifications.
    Subscription,
}

/// A method of the wire contract. The implementing type is its parameters.
pub trait Method: DeserializeOwned + Serialize + JsonSchema + Send + 'static {
    /// What it answers.
    type Result: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// Everything static about it.
    const INFO: MethodInfo;
}

/// Everything static about a method.
#[derive(Clone, Copy, Debug)]
pub struct MethodInfo {
    /// Name on the wire.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// What it may do.
    pub access: Access,
    /// Kinds of error it answers beside those that every method can.
    pub errors: &'static [Kind],
    /// Parameters of an example call, as JSON.
    pub example: &'static str,
    /// Required parameters, then optional ones, in positional order.
    pub params: &'static [Param],
    /// Schema of the parameters object.
    pub params_schema: fn(&mut SchemaGenerator) -> Schema,
    /// Schema of the result.
    pub result_schema: fn(&mut SchemaGenerator) -> Schema,
}

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// It must be given.
    pub required: bool,
}

/// Kinds that every method can answer, whatever it does.
pub const COMMON_ERRORS: &[Kind] = &[
    Kind::InvalidRequest,
    Kind::InvalidParams,
    Kind::Internal,
    Kind::ShuttingDown,
    Kind::Overloaded,
];

/// A Rust identifier without the mark that lets it be a keyword.
pub(crate) const fn bare(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// Declares methods: documentation, access class, type, wire name, `{required; optional}` parameters, result, errors, example.
macro_rules! methods {
    ($(
        #[doc = $summary:literal]
        $access:ident $ty:ident $name:literal
        { $( $(#[doc = $rdoc:literal])* $r:ident : $rty:ty ),* ; $( $(#[doc = $odoc:literal])* $o:ident : $oty:ty ),* }
        -> $res:ty, [$($kind:ident),*], $example:literal;
    )*) => {
        $(
            #[doc = concat!("`", $name, "`:", $summary, ".")]
            #[derive(Clone, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
            #[serde(deny_unknown_fields)]
            pub struct $ty {
                $( $(#[doc = $rdoc])* pub $r: $rty, )*
                $( $(#[doc = $odoc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $o: Option<$oty>, )*
            }

            impl $crate::method::Method for $ty {
                type Result = $res;
                const INFO: $crate::method::MethodInfo = $crate::method::MethodInfo {
                    name: $name,
                    summary: $summary.trim_ascii(),
                    access: $crate::method::Access::$access,
                    errors: &[$($crate::error::Kind::$kind),*],
                    example: $example,
                    params: &[
                        $( $crate::method::Param { name: $crate::method::bare(stringify!($r)), doc: concat!($($rdoc),*).trim_ascii(), required: true }, )*
                        $( $crate::method::Param { name: $crate::method::bare(stringify!($o)), doc: concat!($($odoc),*).trim_ascii(), required: false }, )*
                    ],
                    params_schema: |g| g.subschema_for::<$ty>(),
                    result_schema: |g| g.subschema_for::<$res>(),
                };
            }
        )*

        /// Every method of the contract, in the order of declaration.
        pub const ALL: &[$crate::method::MethodInfo] = &[$(<$ty as $crate::method::Method>::INFO,)*];
    };
}
pub(crate) use methods;
