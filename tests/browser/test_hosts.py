"""The page with large graphs, in a widget, with lessons; its size and its sources."""

import base64
import re
import shutil
import subprocess
import time

import numpy as np

from browser.bundle import PAGE, WEB, absent
from browser.documents import FIELD, NET
from browser.test_page import near, number, read, until


def deep(blocks: int = 12, per: int = 170) -> dict:
    """As much as a transformer of twelve blocks: over two thousand values, whose maps are too large to be stored."""
    some = {
        "min": -1.0,
        "mean": 0.0,
        "max": 1.0,
        "norm": 3.0,
        "nan": 0,
        "histogram": {"low": -1.0, "high": 1.0, "counts": list(range(32))},
    }

    def node(k, group, role="step"):
        return {
            "id": f"n{k}",
            "name": f"v{k}",
            "symbol": f"v{k}",
            "role": role,
            "operation": "mul",
            "text": f"v{k} = f(v{k - 1})",
            "shape": [64, 32],
            "size": 2048,
            "value": some,
            "group": group,
            "output_of": [],
        }

    form = {
        "label": "J",
        "shape": [2048, 2048],
        "structure": {"kind": "opaque", "words": "matrix-free", "glyph": "opaque"},
        "form": "structure",
        "nnz": 2048,
        "stored": 2048,
    }

    def edge(k, a, b, group=None):
        return {"id": f"e{k}", "from": f"n{a}", "to": f"n{b}", "group": group, "jacobian": form}

    nodes, edges, groups, at = [node(0, None, "input")], [], [], 0
    for g in range(blocks):
        start = at
        for _ in range(per):
            at += 1
            nodes.append(node(at, f"g{g}"))
            edges.append(edge(len(edges), at - 1, at))
            if at - start > 3 and at % 4 == 0:
                edges.append(edge(len(edges), at - 3, at))
        edges.append(edge(len(edges), start, at))
        groups.append(
            {
                "id": f"g{g}",
                "parent": None,
                "kind": "call",
                "name": "block",
                "symbol": "block",
                "text": "",
                "times": 1,
                "open": False,
                "inputs": [f"n{start}"],
                "outputs": [f"n{at}"],
                "size": per,
            }
        )
        edges.append(edge(len(edges), start, at, f"g{g}"))

    def place(k):
        return [{"node": f"n{k}", "name": "x", "shape": [64, 32], "offset": 0, "size": 2048}]

    return {
        "schema": "chainrule/explanation",
        "version": 1,
        "function": {"name": "deep"},
        "inputs": place(0),
        "outputs": place(at),
        "nodes": nodes,
        "edges": edges,
        "groups": groups,
        "jacobian": form,
        "sweeps": {},
        "orders": None,
        "paths": [],
        "formulas": {},
        "practice": [],
    }


def test_a_large_function_opens_folded_and_pans_smoothly(visit):
    data = deep()
    assert len(data["nodes"]) > 2000
    start = time.perf_counter()
    page = visit(data)
    page.locator(".node").first.wait_for()
    opened = time.perf_counter() - start
    assert page.locator(".node").count() == 13
    page.locator('[data-f="level-o"]').click()
    page.evaluate("const a = document.getElementById('app').explorer; a.foldAll(false); a.draw()")
    until(page, "root.querySelectorAll('.node').length > 3")
    frames = page.evaluate("""async () => {
      const a = document.getElementById('app').explorer, gaps = [];
      let last = performance.now();
      for (let k = 0; k < 60; k++) {
        await new Promise(requestAnimationFrame);
        const now = performance.now();
        gaps.push(now - last);
        last = now;
        a.pan(-12, 0);
      }
      return gaps.slice(5).sort((p, q) => p - q)[27];
    }""")
    assert opened < 6 and frames < 60  # the machine of a test is busy: alone it takes a fraction


def test_a_widget_asks_its_kernel(visit):
    page = visit(NET.document())
    script = re.search(r'<script type="module">(.*?)</script>', PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    other = FIELD.document(np.array([1.0, 0.0]))
    code = base64.b64encode(script.encode()).decode()
    page.goto("about:blank")
    page.evaluate(
        """async ([code, first, second]) => {
          const bytes = Uint8Array.from(atob(code), c => c.charCodeAt(0));
          const module = await import(URL.createObjectURL(new Blob([bytes], {type: 'text/javascript'})));
          const heard = {}, traits = {data: first}, el = document.createElement('div');
          el.id = 'host';
          document.body.append(el);
          const model = {get: k => traits[k], on: (k, f) => { heard[k] = f; }, send: r => setTimeout(() => {
              const answer = r.points ? {values: r.points.map(() => [0, 0])} : second;
              heard['msg:custom']({id: r.id, answer});
            })};
          module.default.render({model, el});
        }""",
        [code, FIELD.document(), other],
    )
    assert "kernel" in page.locator("#host .chip.life").inner_text()
    page.locator('[data-f="point"]').click()
    page.locator('dialog [data-x="1"]').fill("0")
    for _ in range(100):
        if [number(t) for t in page.locator(".chainrow .cell").all_inner_texts()] == [2, 1, 0, 1]:
            break
        page.wait_for_timeout(50)
    assert [number(t) for t in page.locator(".chainrow .cell").all_inner_texts()] == [2, 1, 0, 1]


def test_the_page_is_small_whole_and_what_its_sources_make():
    html = PAGE.read_text(encoding="utf-8")
    assert len(html.encode()) <= 150 * 1024
    assert html.count('id="data">null</script>') == html.count('id="live">null</script>') == 1
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", html)
    assert not re.search(r"\.innerHTML\s*=|insertAdjacentHTML|\beval\(|new Function", html)
    if shutil.which("node") is None or not (WEB / "node_modules").exists():
        absent("Node and the packages of package.json are needed to build the page anew")
    subprocess.run(["node", "build.mjs", "--check"], cwd=WEB, check=True, capture_output=True)


def test_a_lesson_says_what_it_is_about_and_asks_its_own_questions(visit):
    told = {"id": "B8", "title": "A layer", "text": "Three maps.", "needs": ["A1", "B1"], "next": "C1"}
    asked = {"id": "q1", "level": "easy", "question": "What is 1 + 1?", "kind": "entry", "answer": 2}
    page = visit(
        NET.document()
        | {"lesson": told, "practice": [asked], "formulas": {"chain": {"text": "∇ₓℓ = Wᵀ Diag(σ′) c"}, "entries": []}}
    )
    assert (
        "B8 · A layer" in page.locator(".lesson").inner_text()
        and "before: A1, B1" in page.locator(".lesson").inner_text()
    )
    assert read(page, "chain") == "∇ₓℓ = 𝑊⊤ Diag(σ′) 𝑐"
    page.keyboard.press("p")
    q = page.locator('[data-id="told:q1"]')
    q.locator("input").fill("-2")
    q.get_by_role("button", name="Check").click()
    assert "wrong sign" in q.inner_text()
    q.locator("input").fill("2")
    q.locator("input").press("Enter")
    assert "Right" in q.inner_text()


def test_a_snapshot_with_samples_knows_the_true_change(visit):
    grid = np.linspace(-0.75, 0.75, 33)
    values = [float(NET(NET.x + np.array([u, v]))[0]) for v in grid[::8] for u in grid[::8]]
    low, high = (NET.x - 0.75).tolist(), (NET.x + 0.75).tolist()
    page = visit(NET.document() | {"samples": {"low": low, "high": high, "n": 5, "values": values}})
    at = np.array([0.0, 0.375])  # a point of the grid: nothing is lost between points
    for k in (0, 1):
        page.locator('[data-f="point"]').click()
        page.locator(f'dialog [data-dx="{k}"]').fill(str(at[k]))
        page.keyboard.press("Escape")
    actual = float(NET(NET.x + at)[0] - NET(NET.x)[0])
    assert near(number(read(page, "true")), actual, 4)
    assert page.locator(".plane path.level").count() > 3


def test_a_kernel_that_fails_is_said(visit):
    page = visit(FIELD.document(), live=lambda x: {"error": "no <b>kernel</b>"})
    page.locator('[data-f="point"]').click()
    page.locator('dialog [data-x="1"]').fill("0")
    until(page, "!root.querySelector('.warning').hidden")
    assert page.locator(".warning").inner_text() in {"no <b>kernel</b>", "the values did not come"}
    assert [number(t) for t in page.locator(".chainrow .cell").all_inner_texts()] == [2, 1, 2, 1]
