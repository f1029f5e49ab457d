from gates.record_counts import judge_counts

EXAMPLES = {"train": 900, "validation": 100, "test": 50}


def test_equal_counts_pass_also_where_a_stage_says_nothing():
    assert judge_counts(EXAMPLES, {"train": 900, "validation": 100}, EXAMPLES).passed
    assert judge_counts(EXAMPLES, {}, {}).passed


def test_lost_and_doubled_rows_are_named_with_split_stage_and_both_counts():
    verdict = judge_counts(EXAMPLES, {"train": 890, "validation": 100}, {**EXAMPLES, "test": 100})
    assert not verdict.passed
    assert "the train split has 900 rows, and the Trainer read 890" in verdict.reason
    assert "the test split has 50 rows, and Transform wrote 100" in verdict.reason
