"""What reaches the operator's log."""

from function_builder.logs import MAX_LOGGED_CHARS, cut_values


def test_a_long_text_is_cut_and_says_so():
    event = cut_values(None, "info", {"error": "begin" + "x" * 10**6 + "end", "seconds": 1.0})
    assert event["error"].startswith("beginxxx")
    assert event["error"].endswith("xxxend")
    assert "characters cut" in event["error"]
    assert len(event["error"]) < MAX_LOGGED_CHARS + 100
    assert event["seconds"] == 1.0


def test_a_text_that_fits_is_whole():
    text = "x" * MAX_LOGGED_CHARS
    assert cut_values(None, "info", {"error": text}) == {"error": text}
