"""Reading the HTML of reports in tests."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Reads a page, checks that tags are balanced, and keeps tags and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"closes nothing: {tag}"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & {*self.open}:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def check_self_contained(text):
    """Check that a page is whole and needs nothing beside itself."""
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    for _, attrs in page.tags:
        for name in ("src", "href", "xlink:href"):
            value = attrs.get(name) or "#"
            assert value.startswith(("#", "data:image/jpeg;base64,")), value
    assert page.all("script") == [{}], "one, inline"
    script = text[text.index("<script>") : text.index("</script>")]
    assert not re.search(r"https?:|fetch|import|XMLHttp|innerHTML|eval", script)
    assert not page.all("link")
    assert not re.search(r"@import|url\((?!#)", text)
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    referred = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert {one or other for one, other in referred} <= set(ids)
