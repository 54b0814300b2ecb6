"""The votes as SQL: samples become one row per example.

It groups samples by (example, answer, text), these by answer, and these by example. The largest intermediate result has
one row per distinct text.
"""

from typing import Literal

from storage.datasets.label_sets import BETWEEN, NO_LABELS
from storage.ids import rationale_hash

Positives = Literal["majority", "gold", "majority-and-gold"]
NO_RATIONALE = rationale_hash("")


def vote_sql(samples: str, gold: str, right: str, positives: Positives, per_label: bool) -> str:
    """One row per example: the columns of the votes table, except those that are the same in every row.

    Args:
        samples: SQL for the selected samples, each with whether it `votes`.
        gold: SQL for (example_id, label) and what `right` needs.
        right: SQL for "this answer equals the gold label"; NULL or false if not.
        per_label: whether answers are sets of labels.
    """
    majorities, of_majorities = "", ""
    # The last term decides even if everything else is equal.
    winner = "arg_max(answer, (n_votes, logprob, -first_index, answer)) FILTER (answer IS NOT NULL AND n_votes > 0)"
    most_votes = "coalesce(max(n_votes) FILTER (answer IS NOT NULL), 0)"
    ties = """
        SELECT example_id, count(*) > 1 AS tie, bool_or(is_right AND answer = winner) AS winner_is_right
        FROM answers JOIN (SELECT example_id, most_votes, winner FROM winners) USING (example_id)
        WHERE answer IS NOT NULL AND n_votes > 0 AND n_votes = most_votes GROUP BY example_id"""
    if per_label:
        majorities = f"""of_label AS (
        SELECT example_id, one_label, sum(n_votes) AS votes_for
        FROM (SELECT example_id, n_votes, unnest(string_split(answer, '{BETWEEN}')) AS one_label
              FROM answers WHERE n_votes > 0 AND answer <> '{NO_LABELS}') GROUP BY ALL
    ), majorities AS MATERIALIZED (
        SELECT example_id, bool_or(2 * votes_for = in_all) AS undecided,
               coalesce(string_agg(one_label, '{BETWEEN}' ORDER BY one_label) FILTER (2 * votes_for > in_all),
                        '{NO_LABELS}') AS majority
        FROM (SELECT example_id, sum(n_votes) AS in_all FROM answers WHERE answer IS NOT NULL AND n_votes > 0
              GROUP BY example_id) LEFT JOIN of_label USING (example_id) GROUP BY example_id
    ), """
        of_majorities = "LEFT JOIN majorities USING (example_id)"
        winner = "any_value(majority)"
        most_votes = "coalesce(max(n_votes) FILTER (answer = majority), 0)"
        ties = """
        SELECT example_id, coalesce(undecided, false) AS tie, winner = label AS winner_is_right
        FROM winners JOIN majorities USING (example_id)"""
    is_positive = {
        "majority": "votes AND answer = winner",
        "gold": "votes AND is_right",
        "majority-and-gold": "votes AND answer = winner AND is_right",
    }[positives]
    is_negative = {
        "majority": "answer <> winner",
        "gold": "label IS NOT NULL AND NOT is_right",
        "majority-and-gold": "label IS NOT NULL AND NOT is_right",
    }[positives]
    rightness = "JOIN (SELECT example_id, answer, label, is_right FROM answers) USING (example_id, answer)"
    if positives == "majority":
        rightness = ""  # saves a join
    return f"""
    WITH texts AS MATERIALIZED (
        SELECT example_id, answer, votes, rationale_hash, count(*)::INTEGER AS count,
               min(sample_id) AS sample_id, min(sample_index) AS first_index,
               sum(logprob) AS logprob_sum, count(logprob) AS logprob_count
        FROM {samples} GROUP BY ALL
    ), answers AS MATERIALIZED (
        SELECT example_id, answer, sum(count)::INTEGER AS samples,
               coalesce(sum(count) FILTER (votes), 0)::INTEGER AS n_votes,
               min(first_index) FILTER (votes) AS first_index,
               -- a missing log-probability ranks below every real one
               coalesce(sum(logprob_sum) FILTER (votes) / nullif(sum(logprob_count) FILTER (votes), 0),
                        '-infinity'::DOUBLE) AS logprob,
               any_value(label) AS label, coalesce(any_value({right}), false) AS is_right
        FROM texts LEFT JOIN {gold} USING (example_id) GROUP BY example_id, answer
    ), {majorities} winners AS MATERIALIZED (
        SELECT example_id, sum(samples)::INTEGER AS n_sampled,
               coalesce(sum(n_votes) FILTER (answer IS NOT NULL), 0)::INTEGER AS n_parsed,
               coalesce(sum(samples - n_votes) FILTER (answer IS NOT NULL), 0)::INTEGER AS n_miscalculated,
               {winner} AS winner, ({most_votes})::INTEGER AS most_votes,
               -- entropy of the shares v/n: ln n - sum(v ln v) / n; rounding may take it just below zero
               greatest(0, ln(greatest(1, n_parsed)) - sum(n_votes * ln(greatest(1, n_votes)))
                               FILTER (answer IS NOT NULL) / nullif(n_parsed, 0)) AS entropy,
               any_value(label) AS label, coalesce(sum(samples) FILTER (is_right), 0)::INTEGER AS right_samples
        FROM answers {of_majorities} GROUP BY example_id
    ), ties AS ({ties}
    ), targets AS (
        -- A text is one target, however often and with whatever answers it was sampled. A text that is a positive is
        -- not a negative too, and an empty text explains nothing.
        SELECT example_id, rationale_hash,
               min(sample_id) FILTER ({is_positive}) AS positive, sum(count) FILTER ({is_positive}) AS positive_count,
               min(sample_id) FILTER ({is_negative}) AS negative, sum(count) FILTER ({is_negative}) AS negative_count
        FROM texts JOIN (SELECT example_id, winner FROM winners) USING (example_id) {rightness}
        WHERE rationale_hash <> {NO_RATIONALE} GROUP BY example_id, rationale_hash
    ), listed AS (
        SELECT example_id,
               list({{'sample_id': positive, 'count': positive_count::INTEGER}}) FILTER (positive IS NOT NULL)
                   AS positives,
               list({{'sample_id': negative, 'count': negative_count::INTEGER}})
                   FILTER (positive IS NULL AND negative IS NOT NULL) AS negatives
        FROM targets GROUP BY example_id
    )
    SELECT example_id, winner, n_sampled, n_parsed, n_miscalculated, most_votes AS n_votes,
           most_votes / nullif(n_parsed, 0) AS share, CASE WHEN n_parsed > 0 THEN entropy END AS entropy,
           coalesce(tie, false) AS tie,
           CASE WHEN label IS NOT NULL THEN coalesce(winner_is_right, false) END AS correct,
           CASE WHEN label IS NOT NULL THEN right_samples END AS n_correct,
           coalesce(list_sort(positives), []) AS positives, coalesce(list_sort(negatives), []) AS negatives
    FROM winners LEFT JOIN ties USING (example_id) LEFT JOIN listed USING (example_id)
    """
