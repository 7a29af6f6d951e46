package resolvers

import (
	"context"

	"github.com/openvantage/vantage/engine"
	"github.com/openvantage/vantage/graph/model"
)

// maxEarlier is how many earlier verdicts of a measurement are shown, as the schema says.
const maxEarlier = 10

func (r *measurementResolver) EarlierVerdicts(ctx context.Context, obj *model.Measurement) ([]*model.EarlierVerdict, error) {
	all, err := obj.LoadEarlier()
	if err != nil {
		return nil, err
	}
	engine.Returned(ctx, len(all))
	out := make([]*model.EarlierVerdict, len(all))
	for i, v := range all {
		out[i] = model.NewEarlierVerdict(v)
	}
	return out, nil
}
