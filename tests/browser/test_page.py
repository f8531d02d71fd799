"""Every element of the page is driven in a browser and its numbers are compared with jax."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from browser.documents import EXAMPLES, FIELD, NET, SOFT, WIDE, B, C, W


def number(text: str) -> float:
    """The first number in a text of the page."""
    found = re.search(r"[+−-]?(\d+(?:\.\d+)?)(e[−-]?\d+)?", text)
    assert found, text
    return float(found[0].replace("−", "-"))


def numbers(text: str) -> list[float]:
    return [float(t.replace("−", "-")) for t in re.findall(r"[+−-]?\d+(?:\.\d+)?(?:e[−-]?\d+)?", text)]


def near(a, b, places: int = 3) -> bool:
    return bool(np.allclose(a, b, rtol=2e-3, atol=0.6 * 10**-places))


def until(page, truth: str) -> None:
    """Waits for what a script says of the shadow root: the policy of the page forbids Playwright's own waiting."""
    for _ in range(150):
        if page.evaluate(f"(() => {{ const root = document.getElementById('app').shadowRoot; return {truth}; }})()"):
            return
        page.wait_for_timeout(50)
    raise AssertionError(truth)


def last(page) -> None:
    """Both sweeps to their end."""
    for mode in "fr":
        page.locator(f'[data-mode="{mode}"]').click()
        page.locator('[data-k="last"]').click()


def read(page, key: str) -> str:
    return page.locator(f'[data-read="{key}"]').first.inner_text()


def test_boxes_show_values_and_both_sweeps_of_every_component(visit):
    page = visit(NET.document())
    last(page)
    dx = np.array([0.2, 0.3])
    values = NET.values(NET.x)
    h = np.tanh(W @ NET.x + B)
    delta = {"x": dx, "a": W @ dx, "h": (1 - h**2) * (W @ dx), "loss": NET.jacobian() @ dx}
    nabla = {"loss": [1.0], "h": C, "a": C * (1 - h**2), "x": NET.jacobian()[0]}
    for k, name in enumerate(["x", "a", "h", "loss"]):
        shown = page.locator(f'[data-n="n{k}"] .row')
        assert shown.count() == np.size(values[name])
        for q, truth in enumerate(zip(np.ravel(values[name]), np.ravel(delta[name]), nabla[name], strict=True)):
            assert near([number(shown.nth(q).locator("text").nth(at).text_content()) for at in (1, 2, 3)], truth)


@pytest.mark.parametrize("name", ["net", "field"])
def test_cards_hold_the_local_jacobians_and_cells_select(visit, name):
    example = EXAMPLES[name]
    data = example.document()
    page = visit(data)
    for edge in data["edges"]:
        m, n = edge["jacobian"]["shape"]
        local = np.zeros((m, n))
        j = edge["jacobian"]
        if j["form"] == "dense":
            local = np.reshape(j["values"], (m, n))
        elif j["form"] == "diagonal":
            local = np.diag(j["values"])
        else:
            local[j["rows"], j["columns"]] = j["values"]
        for i, k in itertools.product(range(m), range(n)):
            text = page.locator(f'[data-cell="{edge["id"]}:{i}:{k}"]').text_content()
            assert (text == "·") == (j["form"] != "dense" and local[i, k] == 0)
            assert text == "·" or near(number(text), local[i, k], 2)
    cell = page.locator(f'[data-cell="{data["edges"][0]["id"]}:0:1"]')
    cell.click()
    assert page.locator('[data-f="input:1"]').get_attribute("aria-pressed") == "true"


def test_an_edge_is_a_button_that_lights_its_path(visit):
    page = visit(NET.document())
    edge = page.locator('[data-f="edge:e0:2:0"]')
    assert edge.get_attribute("aria-label") == "partial of a 3 by x 1 equals −0.600"
    edge.focus()
    page.keyboard.press("Enter")
    assert edge.get_attribute("aria-pressed") == "true"
    assert page.locator(".halo.on").count() == 3
    assert near(numbers(page.locator(".prow.on .prod").inner_text()), [2.0, 1 - np.tanh(0.15) ** 2, -0.6])
    page.locator('[data-f="edge:e0:0:1"]').press("Enter")
    assert page.locator('[data-f="input:1"]').get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("name", ["net", "field", "wide"])
def test_the_sum_over_paths_adds_up_to_every_entry(visit, name):
    example = EXAMPLES[name]
    J = example.jacobian()
    page = visit(example.document())
    m, n = J.shape
    for i, j in itertools.product(range(m), range(n)):
        page.evaluate(f"document.getElementById('app').explorer.pick({i}, {j})")
        bars = [number(t) for t in page.locator(".paths .wf span").all_inner_texts()]
        assert near(bars[-1], J[i, j])
        assert near(sum(bars[:-1]), J[i, j], 2)


def test_paths_are_counted_and_those_that_meet_a_zero_are_shown_as_zero(visit):
    page = visit(WIDE.document())
    assert page.locator(".pair input").count() == 1  # six inputs: chosen by number
    live = int((np.asarray(WIDE.values(WIDE.x)["u"]) > 0).sum())
    assert f"{live} path" in page.locator('[data-t="count"]').inner_text()
    assert f"{7 * 7 - live} meet a zero" in page.locator(".lead").inner_text()
    page.locator('[data-f="zeros"]').click()
    zeros = page.locator('.prow[data-path="-1"]')
    assert zeros.count() == 8
    for k in range(8):
        assert min(np.abs(numbers(zeros.nth(k).locator(".prod").inner_text()))) == 0
        assert number(zeros.nth(k).locator(".wf").inner_text()) == 0


def test_the_largest_paths_come_first_and_one_row_holds_the_rest(visit):
    data = SOFT.document()
    page = visit(data)
    page.locator('[data-f="input:n"]').fill("3")
    page.locator('[data-f="input:n"]').press("Enter")
    s = np.asarray(SOFT.values(SOFT.x)["s"])
    local, first = np.diag(s) - np.outer(s, s), np.asarray(jax.jacfwd(SOFT.steps[0].function)(jnp.asarray(SOFT.x)))
    products = sorted(local[0] * first[:, 2], key=lambda v: -abs(v))
    bars = [number(t) for t in page.locator(".paths .wf span").all_inner_texts()]
    assert (
        len(bars) == 10
        and near(bars[:8], products[:8])
        and near(bars[8], sum(products[8:]))
        and near(bars[9], SOFT.jacobian()[0, 2])
    )
    assert "the other 22 paths" in page.locator(".prod.rest").inner_text()


def test_sweeps_step_play_pause_and_keep_their_own_position(visit):
    page = visit(NET.document())
    count = page.locator(".cap .count")
    assert "step 0 of 3" in count.inner_text()
    page.locator('[data-k="next"]').click()
    page.keyboard.press("ArrowRight")
    assert "step 2 of 3" in count.inner_text()
    assert "3 multiply-adds, not 9" in page.locator(".cap").inner_text()
    page.keyboard.press("f")
    assert "step 0 of 3" in count.inner_text()
    page.locator('[data-s="2"]').click()
    page.keyboard.press("Escape")
    page.locator('[data-k="play"]').click()
    assert page.locator('[data-k="play"]').get_attribute("aria-label") == "Pause"
    until(page, "root.querySelector('.count').textContent.includes('step 3 of 3')")
    assert "12 of 12 multiply-adds done" in page.locator(".cap").inner_text()
    page.locator('[data-k="first"]').click()
    page.locator('[data-k="play"]').click()
    page.locator('[data-k="play"]').click()
    assert "step 0 of 3" in count.inner_text()
    page.keyboard.press("r")
    assert "step 2 of 3" in count.inner_text()
    assert page.locator(".tick.now").inner_text().startswith("∇")


def live(example):
    return {
        "live": lambda x: example.document(np.asarray(x, float)),
        "points": lambda p: [np.asarray(example(jnp.asarray(q, float))).tolist() for q in p],
    }


def test_dragging_a_perturbation_pushes_it_and_tells_prediction_from_truth(visit):
    page = visit(NET.document(), **live(NET))
    assert "live" in page.locator(".chip.life").inner_text()
    handle = page.locator('[data-handle="dx"]')
    box = handle.bounding_box()
    at = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + 20, at[1] - 15, steps=4)
    page.mouse.up()
    page.locator('[data-handle="dx"]').press("ArrowLeft")
    dx = np.array(numbers(read(page, "dx")))
    assert not np.allclose(dx, [0.2, 0.3])
    until(page, "!root.querySelector('[data-read=true]').textContent.includes('·')")
    predicted, actual = NET.jacobian()[0] @ dx, float(NET(NET.x + dx)[0] - NET(NET.x)[0])
    assert near(number(read(page, "predicted")), predicted, 4) and near(number(read(page, "dual")), predicted, 4)
    assert near(number(read(page, "true")), actual, 4)
    assert near(number(read(page, "remainder")), abs(actual - predicted) / np.linalg.norm(dx), 4)


def test_a_covector_is_pulled_back_and_the_two_pairings_agree(visit):
    page = visit(FIELD.document())
    page.locator('[data-b="output"]').click()
    for key in ["ArrowRight", "ArrowUp", "ArrowUp"]:
        page.locator('[data-handle="gdrag"]').press(key)
    g = np.array(numbers(read(page, "g")))
    assert np.allclose(g, [1.02, 0.04])
    J, dx = FIELD.jacobian(), np.array([0.2, 0.3])
    assert near(numbers(read(page, "pulled")), g @ J) and near(numbers(read(page, "pushed")), J @ dx)
    assert near(number(read(page, "left")), g @ J @ dx, 4) and read(page, "left") == read(page, "right")
    last(page)
    assert near([number(t.partition("∇")[2]) for t in page.locator('[data-n="n0"] .row').all_text_contents()], g @ J)


def test_moving_the_point_evaluates_anew(visit):
    page = visit(FIELD.document(), **live(FIELD))
    page.locator('[data-f="point"]').click()
    page.locator('dialog [data-x="1"]').fill("0")
    until(page, "root.querySelector('.chip .num').textContent.includes('0.00')")
    page.keyboard.press("Escape")
    cells = [number(t) for t in page.locator(".chainrow .cell").all_inner_texts()]
    assert np.allclose(cells, FIELD.jacobian(np.array([1.0, 0.0])).ravel())


def test_a_snapshot_says_why_the_point_cannot_move(visit):
    page = visit(NET.document())
    assert "snapshot" in page.locator(".chip.life").inner_text()
    page.locator('[data-f="point"]').click()
    assert page.locator('dialog [data-x="0"]').is_disabled()
    assert "snapshot" in page.locator("dialog [data-why]").inner_text()
    page.locator('dialog [data-dx="0"]').fill("0.5")
    page.keyboard.press("Escape")
    assert near(number(read(page, "predicted")), NET.jacobian()[0] @ [0.5, 0.3], 4)


def test_the_chain_strikes_out_sizes_that_cancel_and_J_turns(visit):
    page = visit(NET.document())
    shapes = page.locator(".chainrow .factor .shape").all_inner_texts()
    assert shapes == ["1×3", "3×3", "3×2", "𝐽 1×2"]
    assert [page.locator(".chainrow .factor").nth(k).locator("s").count() for k in range(3)] == [1, 2, 1]
    J = NET.jacobian()
    assert near([number(t) for t in page.locator(".chainrow .cell").all_inner_texts()], J[0])
    page.locator('[data-f="flip"]').click()
    assert "2×1" in page.locator(".chainrow .shape").last.inner_text()
    page.locator('[data-f="J:0:1"]').click()
    assert page.locator('[data-f="input:1"]').get_attribute("aria-pressed") == "true"
    assert "gradient of" in page.locator(".reading").inner_text()


def test_a_card_opens_rank_norm_and_singular_values(visit):
    data = FIELD.document()
    page = visit(data)
    page.locator('[data-f="bigJ"], [data-f^="factor"]').first.click()
    page.keyboard.press("Escape")
    page.evaluate("document.getElementById('app').explorer.openEdge(null)")
    J, of = FIELD.jacobian(), lambda key: page.locator(f'dialog [data-read="{key}"]').inner_text()
    assert of("rank") == str(np.linalg.matrix_rank(J)) and near(number(of("norm")), np.linalg.norm(J))
    assert near(numbers(of("singular values")), np.linalg.svd(J)[1]) and near(
        number(of("determinant")), np.linalg.det(J)
    )
    page.locator('dialog [data-at="1:1"]').click()
    assert page.locator('[data-f="output:1"]').get_attribute("aria-pressed") == "true"


def test_costs_are_those_of_the_plan_and_of_the_large_case(visit):
    data = NET.document()
    page = visit(data)
    for item in data["orders"]["items"]:
        assert number(page.locator(f'[data-order="{item["name"]}"]').inner_text()) == item["multiply_adds"]
        row = page.locator("tr", has=page.locator(f'[data-order="{item["name"]}"]'))
        assert row.locator("svg rect").count() == len(item["travels"])
    page.locator('[data-f="size:true"]').click()
    assert page.locator('[data-order="forward"]').inner_text() == "9·10¹²"
    assert page.locator('[data-order="reverse"]').inner_text() == "1.01·10⁹"


@pytest.mark.parametrize("x", [[1.0, 2.0], [1.0, 0.0], [-1.0, 0.5]])
def test_areas_orientation_rank_kernel_and_the_readouts_of_a_field(visit, x):
    x = np.array(x)
    page = visit(FIELD.document(x))
    page.locator('[data-b="area"]').click()
    J = FIELD.jacobian(x)
    det, sv = np.linalg.det(J), np.linalg.svd(J)[1]
    assert near(number(read(page, "det")), det) and near(numbers(read(page, "area"))[1], abs(det), 2)
    assert read(page, "orientation") == ("collapsed" if abs(det) < 1e-9 else "kept" if det > 0 else "flipped")
    assert near(numbers(read(page, "singular")), sv)
    assert number(read(page, "rank")) == np.linalg.matrix_rank(J)
    if abs(det) < 1e-9:
        assert near(J @ numbers(read(page, "kernel")), 0, 1)
        assert page.locator(".plane .kernel").count() == 1
    assert near(number(read(page, "divergence")), np.trace(J)) and near(number(read(page, "curl")), J[1, 0] - J[0, 1])


def test_the_gradient_stands_on_the_level_sets(visit):
    page = visit(NET.document(), **live(NET))
    until(page, "root.querySelectorAll('.plane path.level').length > 3")
    kernel = page.locator(".plane .kernel")
    a = [float(kernel.get_attribute(k)) for k in ("x1", "y1", "x2", "y2")]
    along = np.array([a[2] - a[0], a[1] - a[3]])
    assert abs(along @ NET.jacobian()[0]) < 1e-6 * np.linalg.norm(along)
    hessian = jax.hessian(lambda t: NET(t)[0])(jnp.asarray(NET.x))
    assert near(number(read(page, "laplacian")), np.trace(hessian), 4)
    # the line through the point: f is the same along it
    d = page.locator(".plane path.through").get_attribute("d")
    points = np.array([[float(v) for v in p.split()] for p in re.findall(r"[\d.]+ [\d.]+", d)])
    xs = NET.x + np.stack([(points[:, 0] - 108) / 144, (108 - points[:, 1]) / 144], 1)
    assert np.abs(jax.vmap(NET)(jnp.asarray(xs))[:, 0] - NET(NET.x)[0]).max() < 5e-3


def test_zoom_pan_and_keys(visit):
    page = visit(NET.document())

    def box():
        return [float(v) for v in page.locator("#canvas").get_attribute("viewBox").split()]

    before = box()
    page.locator('[data-f="zoom+"]').click()
    assert box()[2] < before[2]
    r = page.locator("#canvas").bounding_box()
    page.mouse.move(r["x"] + 20, r["y"] + r["height"] - 12)
    page.mouse.down()
    page.mouse.move(r["x"] + 80, r["y"] + r["height"] - 30, steps=3)
    page.mouse.up()
    assert box()[0] != before[0]
    page.keyboard.press("0")
    assert np.allclose(box(), before)
    page.keyboard.press("2")
    assert page.locator('[data-f="input:1"]').get_attribute("aria-pressed") == "true"
    page.keyboard.press("t")
    assert page.locator(".root").get_attribute("data-theme") == "dark"
    page.keyboard.press("?")
    assert page.locator("dialog").get_attribute("aria-label") == "Keys"
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    assert page.locator("#tab-p").get_attribute("aria-selected") == "true"


def test_long_values_are_strips_whose_components_can_be_picked(visit):
    page = visit(SOFT.document())
    page.locator('[data-f="open:n0"]').click()
    assert page.locator("dialog .comp").count() == 20
    assert near(number(page.locator('dialog [data-at="4"] b').inner_text()), SOFT.x[4])
    page.locator('dialog [data-at="4"]').click()
    assert near([number(t) for t in page.locator(".paths .wf span").all_inner_texts()][-1], SOFT.jacobian()[0, 4])
