// Computes the state of each page after a step of a trace. The result depends only on the trace and the step.
(function () {
	const WORDS = {
		untouched: 'untouched',
		zero: 'zero page',
		resident: 'resident',
		forked: 'shared after fork',
		copied: 'copied',
		shared: 'shared',
	};

	// `bit` is `-` if the page has no entry, `p` if it is present, and `x` if it is present and mapped nowhere else.
	function next(bit, before, shared, wrote) {
		if (bit === '-') return 'untouched';
		if (bit === 'x') {
			if (before === 'forked' && wrote) return 'copied';
			return before === 'copied' ? 'copied' : 'resident';
		}
		if (shared) return 'shared';
		return before === 'untouched' || before === 'zero' ? 'zero' : 'forked';
	}

	// Returns the state of each page, for each process that exists after step `step` (from 0).
	function pagesAt(trace, step) {
		let now = {};
		for (const current of trace.steps.slice(0, step + 1)) {
			const before = now;
			now = {};
			for (const [process, bits] of Object.entries(current.bits)) {
				// A child starts with its parent's pages.
				const inherited = before[process] || before.parent || [];
				const touched = (page) => page >= current.first && page < current.first + current.count;
				now[process] = [...bits].map((bit, page) => next(
					bit,
					inherited[page] || 'untouched',
					trace.mapping === 'shared',
					current.op === 'write' && current.process === process && touched(page),
				));
			}
		}
		return now;
	}

	// Returns the pages of each process, with what has changed in this step and a description in words.
	function at(trace, step) {
		const pages = pagesAt(trace, step);
		const before = step > 0 ? pagesAt(trace, step - 1) : {};
		const { says, value, faults } = trace.steps[step];
		const processes = Object.entries(pages).map(([name, states]) => ({
			name,
			pages: states.map((state, page) => ({
				state,
				changed: step > 0 && (before[name] || [])[page] !== state,
			})),
			words: describe(states),
		}));
		let sentence = says;
		if (value !== null) sentence += ` It reads ${value}.`;
		if (faults !== null) sentence += faults === 1 ? ' One page fault.' : ` ${faults || 'No'} page faults.`;
		return { sentence, processes };
	}

	// Returns the frames behind one page, with their owners: the processes whose page tables lead there.
	function framesOf(processes, page) {
		const frames = [];
		for (const { name, pages } of processes) {
			const { state } = pages[page];
			if (state === 'untouched') continue;
			const common = ['zero', 'forked', 'shared'].includes(state) && frames.find((frame) => frame.state === state);
			if (common) common.owners.push(name);
			else frames.push({ state, owners: [name] });
		}
		return frames;
	}

	// Returns, for example, "pages 0 to 3 resident, 4 to 7 untouched".
	function describe(states) {
		const groups = [];
		states.forEach((state, page) => {
			const last = groups[groups.length - 1];
			if (last && last.state === state) last.to = page;
			else groups.push({ state, from: page, to: page });
		});
		const named = groups.map(({ state, from, to }) =>
			`${from === to ? from : `${from} to ${to}`} ${WORDS[state]}`);
		return `pages ${named.join(', ')}`;
	}

	globalThis.vmModel = { WORDS, at, framesOf };
})();
