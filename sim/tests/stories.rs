//! Every story holds.

/// One test a story, so that a failure says which.
macro_rules! stories {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            let name = stringify!($name);
            let story = tradenet_sim::stories::STORIES.iter().find(|(known, _)| *known == name);
            (story.unwrap().1)();
        })*

        #[test]
        fn no_story_is_left_out() {
            assert_eq!([$(stringify!($name)),*].len(), tradenet_sim::stories::STORIES.len());
        }
    };
}

stories!(
    the_first_trade_goes_through,
    a_key_asked_again_gets_the_same_order,
    reads_come_from_the_cache_until_a_trade_changes_the_stock,
    an_order_is_found_by_its_number,
    the_leader_is_killed_and_the_next_highest_leads,
    a_retried_key_is_replayed_by_the_next_leader,
    one_replica_alone_goes_on,
    the_highest_leads_again_when_it_is_back,
    a_paused_leader_comes_back_as_a_follower,
    a_leader_that_is_cut_off_answers_nothing,
    the_catalog_is_killed_and_everything_goes_on,
    the_catalog_is_paused_and_everything_goes_on,
    everything_stops_and_starts_in_any_order,
    who_has_every_order_is_named_and_waited_for,
    an_emptied_follower_is_filled_again,
    an_emptied_leader_is_filled_again,
    the_last_disk_is_emptied_and_nobody_pretends,
    an_empty_register_is_written_anew,
    an_empty_register_waits_for_every_replica,
    a_register_that_went_back_is_repaired,
    a_slow_disk_does_not_hold_everybody_up,
    a_leader_with_a_full_disk_hands_over,
    what_a_deposed_leader_never_committed_is_cut,
    a_read_through_another_frontend_is_never_old,
    a_leader_that_is_asked_to_stop_hands_over,
    the_broker_restarts_and_everything_goes_on,
);
