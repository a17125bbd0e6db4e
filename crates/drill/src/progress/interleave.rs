//! Mixes the topics. Successive questions on one topic give each other's answers away, and no interviewer asks them
//! that way.

use crate::bank::question::Question;

/// Returns the questions in their order, except that none follows a question on the same topic while another topic is
/// left. `last` is the topic of the question before them.
pub(super) fn interleave<'a>(
    mut questions: Vec<&'a Question>,
    mut last: Option<&'a str>,
) -> Vec<&'a Question> {
    let mut mixed = Vec::with_capacity(questions.len());
    while !questions.is_empty() {
        let other = |question: &&Question| Some(&*question.topic) != last;
        let place = questions.iter().position(other).unwrap_or(0);
        let next = questions.remove(place);
        last = Some(&next.topic);
        mixed.push(next);
    }
    mixed
}
