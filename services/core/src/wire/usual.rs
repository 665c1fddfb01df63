//! Envelopes, trades on their way to the leader and what became of them, written and read in one form.
//!
//! Each order with the house is told of once in a submission and once among outcomes; each message has an envelope. Rule kept: that of
//! [`crate::form`].

use tradenet_schemas::ids::{Epoch, Node, OrderNumber, ReplicaId, SeqNum};
use tradenet_schemas::message::{Envelope, Message, Submission};
use tradenet_schemas::trade::{Command, CommandKey, Outcome};

use crate::form::{self, Form, Sheet};

/// Writes the envelope with its message, if it is one in the form; else nothing. Tells which.
pub(super) fn write(envelope: &Envelope, out: &mut Vec<u8>) -> bool {
    form::write(out, |sheet| {
        let Envelope { cluster, epoch, from, body } = envelope;
        sheet.then("{");
        if let Some(cluster) = cluster {
            sheet.then("\"cluster\":\"").then(cluster.digits().as_str()).then("\",");
        }
        sheet.then("\"epoch\":").number(epoch.0).then(",\"from\":{");
        match from {
            Node::Order(id, boot) => sheet
                .then("\"order\":[")
                .number(u64::from(id.get()))
                .then(",\"")
                .then(boot.digits().as_str())
                .then("\"]"),
            Node::Catalog(boot) => sheet.then("\"catalog\":\"").then(boot.digits().as_str()).then("\""),
            Node::Frontend(boot) => sheet.then("\"frontend\":\"").then(boot.digits().as_str()).then("\""),
            Node::Tool(_) => return None,
        };
        sheet.then("},\"body\":");
        match body {
            Message::Submit(submissions) => {
                sheet.then("{\"submit\":[").list(submissions, write_submission)?.then("}");
            }
            Message::Outcomes { seq, outcomes, before } => {
                sheet.then("{\"outcomes\":{\"seq\":").number(seq.0).then(",\"outcomes\":[");
                sheet.list(outcomes, write_outcome)?;
                if !before.is_empty() {
                    sheet.then(",\"before\":[").list(before, |sheet, request| {
                        sheet.number(*request);
                        Some(())
                    })?;
                }
                sheet.then("}}");
            }
            other => serde_json::to_writer(sheet.out(), other).expect("plain data serializes into memory"),
        }
        sheet.then("}");
        Some(())
    })
}

fn write_submission(sheet: &mut Sheet<'_>, submission: &Submission) -> Option<()> {
    let Submission { request, key, command, known, again } = submission;
    let Command::Trade { symbol, side, quantity } = command else { return None };
    sheet.then("{\"request\":").number(*request).then(",\"key\":\"").text(key.as_str())?;
    sheet.then(",\"command\":{\"trade\":{").deal(symbol, *side, *quantity)?.then("}},\"known\":").number(known.0);
    if *again {
        sheet.then(",\"again\":true");
    }
    sheet.then("}");
    Some(())
}

fn write_outcome(sheet: &mut Sheet<'_>, (request, outcome): &(u64, Outcome)) -> Option<()> {
    let Outcome::Accepted { order, replayed } = outcome else { return None };
    sheet.then("[").number(*request).then(",{\"accepted\":{\"order\":").number(order.0);
    sheet.then(",\"replayed\":").flag(*replayed).then("}}]");
    Some(())
}

/// The envelope in `text`, if it is in the form.
pub(super) fn read(text: &str) -> Option<Envelope> {
    let mut form = Form::new(text);
    form.then("{")?;
    let cluster = match form.then("\"cluster\":\"") {
        Some(form) => {
            let cluster = form.text()?.parse().ok()?;
            form.then(",")?;
            Some(cluster)
        }
        None => None,
    };
    let epoch = Epoch(form.then("\"epoch\":")?.number()?);
    let from = read_node(form.then(",\"from\":{")?)?;
    form.then("},\"body\":")?;
    let body = if form.then("{\"submit\":[").is_some() {
        let submissions = form.list(read_submission)?;
        form.then("}}")?.end()?;
        Message::Submit(submissions)
    } else if form.then("{\"outcomes\":{\"seq\":").is_some() {
        let seq = SeqNum(form.number()?);
        let outcomes = form.then(",\"outcomes\":[")?.list(read_outcome)?;
        let before = match form.then(",\"before\":[") {
            Some(form) => form.list(Form::number)?,
            None => Vec::new(),
        };
        form.then("}}}")?.end()?;
        Message::Outcomes { seq, outcomes, before }
    } else {
        serde_json::from_str(form.rest().strip_suffix('}')?).ok()?
    };
    Some(Envelope { cluster, epoch, from, body })
}

fn read_node(form: &mut Form<'_>) -> Option<Node> {
    if form.then("\"frontend\":\"").is_some() {
        return Some(Node::Frontend(form.text()?.parse().ok()?));
    }
    if form.then("\"catalog\":\"").is_some() {
        return Some(Node::Catalog(form.text()?.parse().ok()?));
    }
    let id = ReplicaId::new(form.then("\"order\":[")?.number()?.try_into().ok()?)?;
    let boot = form.then(",\"")?.text()?.parse().ok()?;
    form.then("]")?;
    Some(Node::Order(id, boot))
}

fn read_submission(form: &mut Form<'_>) -> Option<Submission> {
    let request = form.then("{\"request\":")?.number()?;
    let key = CommandKey::new(form.then(",\"key\":\"")?.text()?).ok()?;
    let (symbol, side, quantity) = form.then(",\"command\":{\"trade\":{")?.deal()?;
    let known = SeqNum(form.then("}},\"known\":")?.number()?);
    let again = form.then(",\"again\":true").is_some();
    form.then("}")?;
    Some(Submission { request, key, command: Command::Trade { symbol, side, quantity }, known, again })
}

fn read_outcome(form: &mut Form<'_>) -> Option<(u64, Outcome)> {
    let request = form.then("[")?.number()?;
    let order = OrderNumber(form.then(",{\"accepted\":{\"order\":")?.number()?);
    let replayed = form.then(",\"replayed\":")?.flag()?;
    form.then("}}]")?;
    Some((request, Outcome::Accepted { order, replayed }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::tests::{check, check_left_to_json};
    use tradenet_schemas::ids::{Boot, ClusterId};
    use tradenet_schemas::trade::{Quantity, Refusal, Side, Symbol};

    const FRONTEND: Node = Node::Frontend(Boot(0x6587_1b1b_81a0_101b));

    fn from(from: Node, body: Message) -> Envelope {
        Envelope { cluster: Some(ClusterId(17)), epoch: Epoch(3), from, body }
    }

    fn submission(request: u64, key: &str, symbol: &str) -> Submission {
        let side = if request.is_multiple_of(2) { Side::Buy } else { Side::Sell };
        let (symbol, quantity) = (Symbol::new(symbol).unwrap(), Quantity::new(request % 1_000).unwrap());
        let command = Command::Trade { symbol, side, quantity };
        let key = CommandKey::new(key).unwrap();
        Submission { request, key, command, known: SeqNum(request / 2), again: request.is_multiple_of(3) }
    }

    fn outcomes(outcomes: Vec<(u64, Outcome)>, before: Vec<u64>) -> Message {
        Message::Outcomes { seq: SeqNum(10), outcomes, before }
    }

    fn accepted(number: u64) -> (u64, Outcome) {
        (number, Outcome::Accepted { order: OrderNumber(number * 10), replayed: number.is_multiple_of(2) })
    }

    #[test]
    fn what_is_usual_is_written_and_read_as_json_would() {
        let leader = Node::Order(ReplicaId::new(3).unwrap(), Boot(7));
        let submissions =
            vec![submission(12, "g:65871b1b81a0101b-120", "GameStart"), submission(u64::MAX, "a:ann:k", "$%")];
        check(
            &[
                from(FRONTEND, Message::Submit(submissions)),
                Envelope { cluster: None, ..from(FRONTEND, Message::Submit(vec![submission(1, "c:k", "x")])) },
                from(FRONTEND, Message::Submit(Vec::new())),
                from(leader, outcomes(vec![accepted(1), accepted(2)], Vec::new())),
                from(leader, outcomes(vec![accepted(0)], vec![0, 12])),
                from(leader, outcomes(Vec::new(), Vec::new())),
                from(Node::Catalog(Boot(9)), Message::Heartbeat { question: None }),
            ],
            write,
            read,
        );
    }

    #[test]
    fn what_has_another_form_is_left_to_json() {
        let leader = Node::Order(ReplicaId::new(3).unwrap(), Boot(7));
        let refused = (3, Outcome::Refused(Refusal::NotEnoughStocks));
        check_left_to_json(
            &[
                from(Node::Tool(Boot(1)), Message::Heartbeat { question: None }),
                from(FRONTEND, Message::Submit(vec![submission(1, "c:k", "x"), submission(2, "c:\\", "x")])),
                from(leader, outcomes(vec![accepted(1), refused], Vec::new())),
            ],
            write,
            read,
        );
    }
}
