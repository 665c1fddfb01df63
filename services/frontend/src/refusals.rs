//! What the exchange refuses, in the contract's words: one status and one sentence for each reason.

use axum::http::StatusCode;
use tradenet_schemas::trade::Refusal;

use crate::envelope::Failure;

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(status(refusal), message(refusal))
    }
}

pub(crate) const fn status(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::UnknownSymbol | Refusal::UnknownOrder => StatusCode::NOT_FOUND,
        Refusal::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        Refusal::Unauthorised => StatusCode::UNAUTHORIZED,
        Refusal::NotEnoughStocks
        | Refusal::TooManyStocks
        | Refusal::AccountTaken
        | Refusal::TooManyAccounts
        | Refusal::InsufficientFunds
        | Refusal::InsufficientStocks
        | Refusal::TooMuchCash
        | Refusal::WouldCross
        | Refusal::TooManyOpenOrders
        | Refusal::TooManyFills
        | Refusal::OrderDone => StatusCode::CONFLICT,
    }
}

pub(crate) const fn message(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownSymbol => "stock not found",
        Refusal::NotEnoughStocks => "not enough stocks left to buy",
        Refusal::TooManyStocks => {
            "too many stocks: the quantity and the volume of a stock stay below 2^53, so trade fewer"
        }
        Refusal::KeyReused => "this Idempotency-Key was used for another request; send a new one",
        Refusal::AccountTaken => "account is taken; choose another name",
        Refusal::TooManyAccounts => "there are 100000 accounts, and no more can be opened",
        Refusal::Unauthorised => "send the account's token in the header Authorization: Bearer TOKEN",
        Refusal::InsufficientFunds => "insufficient funds",
        Refusal::InsufficientStocks => "insufficient stocks",
        Refusal::TooMuchCash => "too much cash: all accounts together hold less than 2^53 cents, so deposit less",
        Refusal::WouldCross => "would cross",
        Refusal::TooManyOpenOrders => "1000 orders of this account are open already; cancel some first",
        Refusal::TooManyFills => "the order would meet more than 1000 others at once; place smaller ones",
        Refusal::UnknownOrder => "order not found",
        Refusal::OrderDone => "order is done",
    }
}

#[cfg(test)]
mod tests {
    use tradenet_schemas::limits::{ACCOUNTS_MAX, FILLS_PER_ORDER_MAX, OPEN_ORDERS_MAX};

    use super::*;

    #[test]
    fn a_message_names_the_limit_that_is_kept() {
        let check = |refusal, limit: usize| assert!(message(refusal).contains(&limit.to_string()), "{refusal:?}");
        check(Refusal::TooManyAccounts, ACCOUNTS_MAX);
        check(Refusal::TooManyOpenOrders, OPEN_ORDERS_MAX);
        check(Refusal::TooManyFills, FILLS_PER_ORDER_MAX);
    }
}
