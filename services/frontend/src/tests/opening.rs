//! A new exchange, before and after its first stock.

use crate::opening::Opening;

use super::*;

/// Asks whether there is something to trade, and answers the question for stocks with these; none: not at all.
async fn check(opening: &Opening, stocks: Option<Vec<Stock>>, open: bool) {
    let (served, mut inputs) = serve(Limits::default(), PATIENCE).await;
    let desk = Arc::clone(&served.desk);
    let answering = tokio::spawn(async move {
        while let Some(Input::Client(ticket, ClientRequest::Stocks)) = inputs.recv().await {
            if let Some(stocks) = &stocks {
                served.desk.answer(ticket, ClientAnswer::Stocks(stocks.clone()));
            }
        }
    });
    assert_eq!(opening.open(&desk).await.is_ok(), open);
    answering.abort();
}

#[tokio::test]
async fn a_new_exchange_is_not_ready_before_its_first_stock() {
    let opening = Opening::default();
    check(&opening, Some(vec![]), false).await;
    check(&opening, Some(vec![stock("GameStart", 1599)]), true).await;
    // Not asked again, so that a catalog that is away later keeps nobody from trading.
    check(&opening, Some(vec![]), true).await;
}

#[tokio::test]
async fn without_a_catalog_that_answers_trades_are_served_all_the_same() {
    let opening = Opening::default();
    check(&opening, None, true).await;
    check(&opening, Some(vec![]), false).await;
}
