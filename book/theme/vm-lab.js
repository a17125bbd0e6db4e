// <vm-lab>: replays the recording of a mapping. Without this script it is a table.
(function () {
	const { make, button, print } = workbook;
	if (print) return;

	const { WORDS, at, framesOf } = vmModel;
	const SIGNS = { untouched: '·', zero: '0', resident: 'R', forked: 'F', copied: 'C', shared: 'S' };
	const FRAMES = { zero: 'zero page', copied: 'copy' };
	const column = (title, cells) => make('div', { className: 'vm-column' },
		make('span', { className: 'vm-name', textContent: title }), make('div', { className: 'vm-pages' }, ...cells));
	const cell = (state, changed) => make('span', {
		className: `vm-page vm-${state}${changed ? ' vm-changed' : ''}`,
		textContent: SIGNS[state],
	});

	customElements.define('vm-lab', class extends HTMLElement {
		connectedCallback() {
			const caption = this.querySelector('.wb-ask');
			const table = make('details', {}, make('summary', { textContent: 'All steps as a table' }));
			table.append(...[...this.children].filter((child) => child !== caption));
			this.rows = make('div', { className: 'vm-rows' });
			this.sentence = make('p', { className: 'vm-sentence', ariaLive: 'polite' });
			this.first = button('Start', () => this.go(0));
			this.back = button('Back', () => this.go(this.step - 1));
			this.forward = button('Step', () => this.go(this.step + 1));
			this.buttons = make('p', { className: 'wb-buttons' }, this.first, this.back, this.forward);
			this.source = make('p', { className: 'vm-source' });
			this.legend = make('p', { className: 'vm-legend' });
			this.replaceChildren(caption, this.rows, this.sentence, this.buttons, this.legend, this.source, table);
			this.role = 'group';
			this.ariaLabel = caption.textContent;
			this.addEventListener('keydown', (event) => this.onKey(event));
			this.show(JSON.parse(this.dataset.trace), 'Recorded');
		}

		// Starts to replay a trace. `recorded` begins the sentence about its source.
		show(trace, recorded) {
			this.trace = trace;
			this.last = trace.steps.length - 1;
			this.all = trace.steps.map((_, step) => at(trace, step));
			const shown = this.all.flatMap(({ processes }) => processes);
			const states = new Set(shown.flatMap(({ pages }) => pages.map(({ state }) => state)));
			this.names = [...new Set(shown.map(({ name }) => name))];
			this.legend.replaceChildren(...[...states].map((state) =>
				make('span', {}, cell(state), ` ${WORDS[state]}`)));
			const { kernel, machine } = trace.recorded_on;
			this.source.textContent = `${recorded} on Linux ${kernel}, ${machine}.`;
			this.go(0);
		}

		onKey(event) {
			if (event.ctrlKey || event.metaKey || event.altKey) return;
			const moves = { ArrowRight: this.step + 1, ArrowLeft: this.step - 1, Home: 0, End: this.last };
			if (!(event.key in moves)) return;
			// mdBook would turn the page.
			event.stopPropagation();
			event.preventDefault();
			this.go(moves[event.key]);
		}

		go(step) {
			this.step = Math.max(0, Math.min(step, this.last));
			const { sentence, processes } = this.all[this.step];
			this.sentence.textContent = `Step ${this.step + 1} of ${this.last + 1}: ${sentence}`;
			// A process that has not started or has ended keeps its place, so that no button moves.
			const shown = this.names.map((name) => processes.find((found) => found.name === name));
			const [left, right] = shown.map((process, index) => {
				const { pages } = process || this.all[0].processes[0];
				const title = shown.length > 1 ? `${this.names[index]}\u2019s page table` : 'page table';
				const made = column(title, pages.map(({ state, changed }) => cell(state, changed)));
				made.classList.toggle('vm-gone', !process);
				if (process) Object.assign(made.lastChild, { role: 'img', ariaLabel: `${process.name}: ${process.words}` });
				return made;
			});
			const frames = column('frames', this.all[0].processes[0].pages.map((_, page) => {
				const found = framesOf(shown.filter(Boolean), page);
				const line = (name) => make('span', { className: found.some(({ owners }) => owners.includes(name)) ? 'vm-line' : '' });
				return make('span', { className: 'vm-frames' }, line(this.names[0]), ...found.map(({ state }) =>
					make('span', { className: `vm-frame vm-${state}`, textContent: FRAMES[state] ?? 'frame' })), line(this.names[1]));
			}));
			// The states of the pages say the same in words.
			frames.ariaHidden = 'true';
			this.rows.replaceChildren(left, frames, ...(right ? [right] : []));
			// `disabled` would take the focus away, and the arrow keys would not work any more.
			this.first.ariaDisabled = this.back.ariaDisabled = this.step === 0;
			this.forward.ariaDisabled = this.step === this.last;
		}
	});
})();
