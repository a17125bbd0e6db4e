// If `cargo run -- read` serves the page: live verdicts, programs that run on this kernel, and reloads after an edit.
(function () {
	const meta = document.querySelector('meta[name=workbook-live]');
	if (!meta || workbook.print) return;

	const { make, button } = workbook;
	const { token, build } = meta.dataset;
	const verdictOf = ({ failed, skipped, not_started: waiting }) => (failed ? 'failed'
		: waiting ? 'waiting' : skipped ? 'skipped' : 'passed');

	function showVerdict({ exercise, stages, solved }) {
		const core = stages.filter((stage) => !stage.bonus);
		const passed = core.filter((stage) => verdictOf(stage) === 'passed').length;
		const failed = stages.some((stage) => stage.failed);
		for (const element of document.querySelectorAll(`[data-exercise="${CSS.escape(exercise)}"]`)) {
			if (element.localName === 'li') {
				mark(element, solved ? 'passed' : failed ? 'failed' : 'waiting',
					solved ? 'solved' : `${passed} of ${core.length} stages pass`);
				continue;
			}
			for (const stage of stages) {
				const item = element.querySelector(`[data-stage="${CSS.escape(stage.name)}"]`);
				if (item) mark(item, verdictOf(stage), `${stage.passed} of ${stage.possible} cases pass. ${stage.failure ?? ''}`);
			}
			element.querySelector('.wb-head').textContent = solved ? 'Solved.' : 'Not solved yet. Grade it again:';
		}
	}

	function mark(item, verdict, words) {
		item.dataset.verdict = verdict;
		const result = item.querySelector('.wb-result') || item.appendChild(make('small', { className: 'wb-result' }));
		result.textContent = ` · ${words}`;
	}

	const notice = make('p', { className: 'wb-notice', role: 'status', hidden: true });
	document.body.append(notice);
	function note(words) {
		notice.textContent = words;
		notice.hidden = !words;
	}

	let events;
	function listen() {
		// A browser opens six connections to a server, for all tabs together, so a hidden page gives up its own.
		events?.close();
		if (document.hidden) return;
		events = new EventSource(`/live/events?token=${token}`);
		events.onopen = () => note('');
		events.onerror = lost;
		events.addEventListener('verdict', (event) => showVerdict(JSON.parse(event.data)));
		events.addEventListener('book', (event) => { if (event.data !== build) location.reload(); });
	}
	document.addEventListener('visibilitychange', listen);
	listen();

	// A server that was started again refuses this page's token. It serves the page with a new one.
	async function lost({ target }) {
		const page = await fetch(location.href).then((answer) => answer.text()).catch(() => null);
		if (page?.includes('data-token=') && !page.includes(token)) return location.reload();
		if (target !== events) return;
		note(page === null ? "The book's server has stopped. Start it again: cargo run -- read"
			: 'Live verdicts have stopped. Reload this page.');
		// After a refusal the browser does not connect again by itself.
		if (target.readyState === EventSource.CLOSED) setTimeout(() => { if (target === events) listen(); }, 3000);
	}

	// A button that sends a request and passes the answer, or the reason why there is none, to `show`.
	function requestButton(words, path, show) {
		const made = button(words, async () => {
			if (made.ariaDisabled) return;
			made.ariaDisabled = 'true';
			made.textContent = 'Running …';
			const request = fetch(path, { method: 'POST', headers: { 'x-workbook-token': token } });
			const answer = await request.catch(() => null);
			show(answer?.ok ? await answer.json()
				: { output: answer ? await answer.text() || answer.statusText : "The book's server has stopped." });
			made.textContent = words;
			made.ariaDisabled = null;
		});
		return made;
	}

	// A box for the program in one language. A page that has a switch shows the box of the chosen language.
	function runBox(name, path, before) {
		const out = make('div', { ariaLive: 'polite' });
		const column = (words, text) => make('div', {}, make('p', { textContent: words }),
			make('pre', {}, make('code', { textContent: text, tabIndex: 0 })));
		return make('div', { className: 'wb-run' }, make('div', { className: 'wb-buttons' },
			requestButton(`Run on my kernel${name}`, path, ({ ok, output }) => {
				const words = !ok ? 'It failed here:'
					: `Your kernel${name} (${output.trim() === before.trim() ? 'same' : 'different'} output):`;
				out.replaceChildren(make('div', { className: 'wb-both' },
					column('The book:', before), column(words, output)));
			})), out);
	}

	for (const code of document.querySelectorAll('main pre > code.language-console')) {
		const shown = /^\$ cargo run -q -p lab --example (\w+)\n([^]*)/.exec(code.textContent);
		if (!shown) continue;
		const [, program, before] = shown;
		const rust = `/live/run/${program}`;
		if (!document.querySelector(`wb-languages[data-program="${program}"]`)) {
			code.closest('pre').after(runBox('', rust, before));
			continue;
		}
		const boxes = [runBox(', in Rust', rust, before), runBox(', in C', `/live/run-c/${program}`, before)];
		[boxes[0].dataset.language, boxes[1].dataset.language] = ['rust', 'c'];
		code.closest('pre').after(...boxes);
	}

	for (const lab of document.querySelectorAll('vm-lab')) {
		lab.buttons.append(requestButton('Record on my kernel', `/live/trace/${lab.trace.name}`, (result) => {
			if (result.ok) lab.show(JSON.parse(result.output), 'Recorded just now');
			else lab.sentence.textContent = `It failed here: ${result.output}`;
		}));
	}
})();
