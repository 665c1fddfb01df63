//! JSON Schemas of the types that check themselves: what each refuses, in the words of a schema.
//!
//! The other types derive theirs. Only in builds with the feature `json-schema`: no service needs any of this.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::account::{Account, Cash, TokenHash};
use crate::ids::{Boot, Chain, ClusterId, Digest, Nonce, Question, ReplicaId, StoreId};
use crate::limits::{
    ACCOUNT_BYTES_MAX, CASH_CENTS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, PRICE_CENTS_MAX, QUANTITY_MAX, REPLICA_ID_MAX,
    SYMBOL_BYTES_MAX,
};
use crate::trade::{CommandKey, Price, Quantity, Symbol};

macro_rules! schema {
    ($($name:ident: $says:literal, $schema:tt;)*) => {
        $(impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!($schema);
                schema.insert("description".to_owned(), $says.into());
                schema
            }
        })*
    };
}

/// Visible ASCII characters but `*`, `.`, `/` and `>`.
const OF_A_SYMBOL: &str = r"[!-)+,\-0-=?-~]";
const HEX_16: &str = "^[0-9a-f]{16}$";

schema! {
    Symbol: "A stock's name.", {"type": "string", "pattern": format!("^{OF_A_SYMBOL}{{1,{SYMBOL_BYTES_MAX}}}$")};
    CommandKey: "What makes a command happen once: `c:KEY` of a client, `a:ACCOUNT:KEY` of an account's client, `g:BOOT-NUMBER` made \
        by a frontend.",
        {"type": "string", "pattern": format!("^[cag]:[!-~]{{1,{}}}$", IDEMPOTENCY_KEY_BYTES_MAX + ACCOUNT_BYTES_MAX + 1)};
    Account: "An account's name.", {"type": "string", "pattern": format!("^[a-z0-9_-]{{1,{ACCOUNT_BYTES_MAX}}}$")};
    TokenHash: "The SHA-256 of a token's secret.", {"type": "string", "pattern": "^[0-9a-f]{64}$"};
    Quantity: "How many stocks.", {"type": "integer", "minimum": 0, "maximum": QUANTITY_MAX};
    Price: "The price of one stock, in cents.", {"type": "integer", "minimum": 0, "maximum": PRICE_CENTS_MAX};
    Cash: "Money, in cents.", {"type": "integer", "minimum": 0, "maximum": CASH_CENTS_MAX};
    ReplicaId: "An order replica.", {"type": "integer", "minimum": 1, "maximum": REPLICA_ID_MAX};
    Boot: "One run of one process.", {"type": "string", "pattern": HEX_16};
    StoreId: "One directory of a replica.", {"type": "string", "pattern": HEX_16};
    ClusterId: "One exchange.", {"type": "string", "pattern": HEX_16};
    Nonce: "One attempt to write the configuration.", {"type": "string", "pattern": HEX_16};
    Question: "One question of a replica to the others.", {"type": "string", "pattern": HEX_16};
    Chain: "The checksum of an entry, chained over all entries before it.", {"type": "string", "pattern": HEX_16};
    Digest: "A digest of the exchange's state.", {"type": "string", "pattern": HEX_16};
}
