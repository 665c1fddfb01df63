//! Every story holds.

/// One test a story, so that a failure says which.
macro_rules! tests {
    ($($name:ident,)*) => {
        $(#[test]
        fn $name() {
            let name = stringify!($name);
            let story = tradenet_sim::stories::STORIES.iter().find(|(known, _)| *known == name);
            (story.unwrap().1)();
        })*
    };
}
tradenet_sim::with_stories!(tests);
