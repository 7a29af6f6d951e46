package measurement

import "fmt"

// misfit is the error of a scorer whose rule cannot read a field; Score makes it a sentence.
// The peer has an exception there and loses the row.
func misfit(field, wrong string) error {
	return fmt.Errorf("field %s %s", field, wrong)
}

// list is a member of the test keys that is to be iterated: an array, or something that
// Python iterates without finding anything.
func list(testKeys value, field string) (value, error) {
	v := testKeys.get(field)
	if v.none() || v.kind() == arrayKind || v.empty() {
		return v, nil
	}
	return value{}, misfit("test_keys."+field, "is not a list")
}
