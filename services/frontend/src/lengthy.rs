//! Long answers, and clients that do not read them.
//!
//! Problem: hyper copies a whole answer into its own buffer at once, and keeps it until the client has read it or is cut off.
//! Some thousand clients that ask for long lists and read nothing then hold more memory than the process may have. Idea: a
//! long answer is handed over in pieces, the next one when there is room for it, so that what is the program's own, and the
//! same for all, is never copied as a whole. What was made for one client counts against one bound for all of them until the
//! last piece is taken. Rules kept: who is over that bound is told so before its answer begins, and only if nothing was done
//! for it; short answers, which all trades have, are never refused here.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::envelope::Failure;
use crate::limits::PIECE_BYTES;

/// Whether an answer has to be handed over in pieces. Streams have no length, and a bound of their own.
pub(crate) fn is_long(answer: &Response) -> bool {
    answer.body().size_hint().exact().is_some_and(|bytes| bytes > PIECE_BYTES as u64)
}

/// Has a long answer handed over in pieces; while it is not read, it takes so many bytes of `room`.
pub(crate) async fn hand_over(answer: Response, changes_nothing: bool, room: &Arc<Semaphore>) -> Response {
    let (parts, body) = answer.into_parts();
    let rest = match to_bytes(body, usize::MAX).await {
        Ok(rest) => rest,
        Err(error) => {
            let why = format!("the answer could not be written: {error}");
            return Failure::new(StatusCode::INTERNAL_SERVER_ERROR, why).into_response();
        }
    };
    let mut place = None;
    if rest.is_unique() && changes_nothing {
        place = u32::try_from(rest.len()).ok().and_then(|bytes| Arc::clone(room).try_acquire_many_owned(bytes).ok());
        if place.is_none() {
            return Failure::unavailable("too many long answers are not read by their clients; try again")
                .into_response();
        }
    }
    Response::from_parts(parts, Body::new(Pieces { rest, _place: place }))
}

/// What is left of an answer.
struct Pieces {
    rest: Bytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
