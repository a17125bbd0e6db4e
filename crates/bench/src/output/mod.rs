pub mod chart;
pub mod table;
