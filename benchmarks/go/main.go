// A plain bridge in Go, as one would write it in a day: encoding/json, hamba/avro, franz-go. Each message becomes one
// raw record (the payload) and one unified Avro record; prices stay text.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kgo"
)

const streamsPerConnection = 200

var suffixes = []string{"@bookTicker", "@aggTrade", "@trade", "@depth@100ms", "@kline_1m", "@ticker"}

type envelope struct {
	Stream string          `json:"stream"`
	Data   json.RawMessage `json:"data"`
}

type bookTicker struct {
	ID        int64  `json:"u"`
	Symbol    string `json:"s"`
	Bid       string `json:"b"`
	BidVolume string `json:"B"`
	Ask       string `json:"a"`
	AskVolume string `json:"A"`
}

type trade struct {
	EventType  string `json:"e"` // encoding/json takes E for e where e is not asked for
	EventTime  int64  `json:"E"`
	Symbol     string `json:"s"`
	TradeID    int64  `json:"t"`
	AggID      int64  `json:"a"`
	Price      string `json:"p"`
	Quantity   string `json:"q"`
	First      int64  `json:"f"`
	Last       int64  `json:"l"`
	Time       int64  `json:"T"`
	BuyerMaker bool   `json:"m"`
	Ignored    bool   `json:"M"`
}

type depth struct {
	EventType string      `json:"e"` // encoding/json takes E for e where e is not asked for
	EventTime int64       `json:"E"`
	Symbol    string      `json:"s"`
	First     int64       `json:"U"`
	Last      int64       `json:"u"`
	Bids      [][2]string `json:"b"`
	Asks      [][2]string `json:"a"`
}

type kline struct {
	EventType string `json:"e"` // encoding/json takes E for e where e is not asked for
	EventTime int64  `json:"E"`
	Symbol    string `json:"s"`
	Candle    struct {
		OpenTime    int64  `json:"t"`
		CloseTime   int64  `json:"T"`
		Interval    string `json:"i"`
		First       int64  `json:"f"`
		Last        int64  `json:"L"`
		Open        string `json:"o"`
		Close       string `json:"c"`
		High        string `json:"h"`
		Low         string `json:"l"`
		Volume      string `json:"v"`
		Trades      int64  `json:"n"`
		Closed      bool   `json:"x"`
		QuoteVolume string `json:"q"`
		TakerBase   string `json:"V"`
		TakerQuote  string `json:"Q"`
	} `json:"k"`
}

type ticker struct {
	EventType   string `json:"e"` // encoding/json takes E for e where e is not asked for
	EventTime   int64  `json:"E"`
	Symbol      string `json:"s"`
	Change      string `json:"p"`
	Percentage  string `json:"P"`
	Average     string `json:"w"`
	Previous    string `json:"x"`
	Close       string `json:"c"`
	LastAmount  string `json:"Q"`
	Bid         string `json:"b"`
	BidVolume   string `json:"B"`
	Ask         string `json:"a"`
	AskVolume   string `json:"A"`
	Open        string `json:"o"`
	High        string `json:"h"`
	Low         string `json:"l"`
	Volume      string `json:"v"`
	QuoteVolume string `json:"q"`
	OpenTime    int64  `json:"O"`
	CloseTime   int64  `json:"C"`
	First       int64  `json:"F"`
	Last        int64  `json:"L"`
	Trades      int64  `json:"n"`
}

type bidAskRecord struct {
	Symbol     string `avro:"symbol"`
	ReceivedAt int64  `avro:"receivedAt"`
	Sequence   int64  `avro:"sequence"`
	Bid        string `avro:"bid"`
	BidVolume  string `avro:"bidVolume"`
	Ask        string `avro:"ask"`
	AskVolume  string `avro:"askVolume"`
}

type tradeRecord struct {
	Symbol       string `avro:"symbol"`
	ReceivedAt   int64  `avro:"receivedAt"`
	Sequence     int64  `avro:"sequence"`
	Timestamp    int64  `avro:"timestamp"`
	Side         string `avro:"side"`
	Price        string `avro:"price"`
	Amount       string `avro:"amount"`
	EventTime    int64  `avro:"eventTime"`
	FirstTradeID int64  `avro:"firstTradeId"`
	LastTradeID  int64  `avro:"lastTradeId"`
}

type level struct {
	Price  string `avro:"price"`
	Amount string `avro:"amount"`
}

type bookRecord struct {
	Symbol        string  `avro:"symbol"`
	ReceivedAt    int64   `avro:"receivedAt"`
	Sequence      int64   `avro:"sequence"`
	FirstSequence int64   `avro:"firstSequence"`
	Timestamp     int64   `avro:"timestamp"`
	Bids          []level `avro:"bids"`
	Asks          []level `avro:"asks"`
}

type candleRecord struct {
	Symbol      string `avro:"symbol"`
	ReceivedAt  int64  `avro:"receivedAt"`
	Timestamp   int64  `avro:"timestamp"`
	Timeframe   string `avro:"timeframe"`
	Open        string `avro:"open"`
	High        string `avro:"high"`
	Low         string `avro:"low"`
	Close       string `avro:"close"`
	Volume      string `avro:"volume"`
	EventTime   int64  `avro:"eventTime"`
	Closed      bool   `avro:"closed"`
	CloseTime   int64  `avro:"closeTime"`
	QuoteVolume string `avro:"quoteVolume"`
	Trades      int64  `avro:"trades"`
	TakerBase   string `avro:"takerBuyBaseVolume"`
	TakerQuote  string `avro:"takerBuyQuoteVolume"`
	First       int64  `avro:"firstTradeId"`
	Last        int64  `avro:"lastTradeId"`
}

type tickerRecord struct {
	Symbol        string `avro:"symbol"`
	ReceivedAt    int64  `avro:"receivedAt"`
	Timestamp     int64  `avro:"timestamp"`
	High          string `avro:"high"`
	Low           string `avro:"low"`
	Bid           string `avro:"bid"`
	BidVolume     string `avro:"bidVolume"`
	Ask           string `avro:"ask"`
	AskVolume     string `avro:"askVolume"`
	VWAP          string `avro:"vwap"`
	Open          string `avro:"open"`
	Close         string `avro:"close"`
	PreviousClose string `avro:"previousClose"`
	Change        string `avro:"change"`
	Percentage    string `avro:"percentage"`
	BaseVolume    string `avro:"baseVolume"`
	QuoteVolume   string `avro:"quoteVolume"`
	EventTime     int64  `avro:"eventTime"`
	OpenTime      int64  `avro:"windowOpenTime"`
	CloseTime     int64  `avro:"windowCloseTime"`
	First         int64  `avro:"firstTradeId"`
	Last          int64  `avro:"lastTradeId"`
	Trades        int64  `avro:"trades"`
	LastAmount    string `avro:"lastAmount"`
}

// record returns the schema of fields written as "name:type name:type …".
func record(name, fields string) avro.Schema {
	types := map[string]string{
		"levels": `{"type":"array","items":{"type":"record","name":"Level","fields":[{"name":"price","type":"string"},{"name":"amount","type":"string"}]}}`,
		"more":   `{"type":"array","items":"Level"}`,
	}
	var parts []string
	for _, field := range strings.Fields(fields) {
		name, kind, _ := strings.Cut(field, ":")
		text, special := types[kind]
		if !special {
			text = `"` + kind + `"`
		}
		parts = append(parts, fmt.Sprintf(`{"name":"%s","type":%s}`, name, text))
	}
	return avro.MustParse(fmt.Sprintf(`{"type":"record","name":"%s","fields":[%s]}`, name, strings.Join(parts, ",")))
}

var (
	bidAskSchema = record("BidAsk", "symbol:string receivedAt:long sequence:long bid:string bidVolume:string ask:string askVolume:string")
	tradeSchema  = record("Trade", "symbol:string receivedAt:long sequence:long timestamp:long side:string price:string amount:string "+
		"eventTime:long firstTradeId:long lastTradeId:long")
	bookSchema = record("OrderBook", "symbol:string receivedAt:long sequence:long firstSequence:long timestamp:long "+
		"bids:levels asks:more")
	candleSchema = record("Ohlcv", "symbol:string receivedAt:long timestamp:long timeframe:string open:string high:string low:string "+
		"close:string volume:string eventTime:long closed:boolean closeTime:long quoteVolume:string trades:long "+
		"takerBuyBaseVolume:string takerBuyQuoteVolume:string firstTradeId:long lastTradeId:long")
	tickerSchema = record("Ticker", "symbol:string receivedAt:long timestamp:long high:string low:string bid:string bidVolume:string "+
		"ask:string askVolume:string vwap:string open:string close:string previousClose:string change:string percentage:string "+
		"baseVolume:string quoteVolume:string eventTime:long windowOpenTime:long windowCloseTime:long firstTradeId:long "+
		"lastTradeId:long trades:long lastAmount:string")
)

func levels(given [][2]string) []level {
	found := make([]level, len(given))
	for i, pair := range given {
		found[i] = level{pair[0], pair[1]}
	}
	return found
}

func unifiedName(symbol string) string {
	return strings.TrimSuffix(symbol, "USDT") + "/USDT"
}

// convert returns channel, structure, symbol and Avro bytes of a message.
func convert(stream string, data []byte, now int64) (channel, structure, symbol string, value []byte, err error) {
	_, kind, _ := strings.Cut(stream, "@")
	switch {
	case kind == "bookTicker":
		var m bookTicker
		if err = json.Unmarshal(data, &m); err != nil {
			return
		}
		value, err = avro.Marshal(bidAskSchema, bidAskRecord{
			unifiedName(m.Symbol), now, m.ID, m.Bid, m.BidVolume, m.Ask, m.AskVolume,
		})
		return "book-ticker", "bid-ask", m.Symbol, value, err
	case kind == "aggTrade" || kind == "trade":
		var m trade
		if err = json.Unmarshal(data, &m); err != nil {
			return
		}
		side, id, name := "buy", m.TradeID, "trade"
		if m.BuyerMaker {
			side = "sell"
		}
		if kind == "aggTrade" {
			id, name = m.AggID, "agg-trade"
		}
		value, err = avro.Marshal(tradeSchema, tradeRecord{
			unifiedName(m.Symbol), now, id, m.Time, side, m.Price, m.Quantity, m.EventTime, m.First, m.Last,
		})
		return name, "trade", m.Symbol, value, err
	case strings.HasPrefix(kind, "depth"):
		var m depth
		if err = json.Unmarshal(data, &m); err != nil {
			return
		}
		value, err = avro.Marshal(bookSchema, bookRecord{
			unifiedName(m.Symbol), now, m.Last, m.First, m.EventTime, levels(m.Bids), levels(m.Asks),
		})
		return "depth", "order-book", m.Symbol, value, err
	case strings.HasPrefix(kind, "kline"):
		var m kline
		if err = json.Unmarshal(data, &m); err != nil {
			return
		}
		k := &m.Candle
		value, err = avro.Marshal(candleSchema, candleRecord{
			unifiedName(m.Symbol), now, k.OpenTime, k.Interval, k.Open, k.High, k.Low, k.Close, k.Volume, m.EventTime,
			k.Closed, k.CloseTime, k.QuoteVolume, k.Trades, k.TakerBase, k.TakerQuote, k.First, k.Last,
		})
		return "kline", "ohlcv", m.Symbol, value, err
	case kind == "ticker":
		var m ticker
		if err = json.Unmarshal(data, &m); err != nil {
			return
		}
		value, err = avro.Marshal(tickerSchema, tickerRecord{
			unifiedName(m.Symbol), now, m.CloseTime, m.High, m.Low, m.Bid, m.BidVolume, m.Ask, m.AskVolume, m.Average,
			m.Open, m.Close, m.Previous, m.Change, m.Percentage, m.Volume, m.QuoteVolume, m.EventTime, m.OpenTime,
			m.CloseTime, m.First, m.Last, m.Trades, m.LastAmount,
		})
		return "ticker", "ticker", m.Symbol, value, err
	}
	return "", "", "", nil, fmt.Errorf("no such stream: %s", stream)
}

func produce(ctx context.Context, client *kgo.Client, topic, key string, value []byte) {
	client.Produce(ctx, &kgo.Record{Topic: topic, Key: []byte(key), Value: value}, func(_ *kgo.Record, err error) {
		if err != nil {
			log.Fatal(err)
		}
	})
}

func read(ctx context.Context, url string, streams []string, client *kgo.Client) error {
	connection, _, err := websocket.Dial(ctx, url+"/stream", nil)
	if err != nil {
		return err
	}
	connection.SetReadLimit(1 << 24)
	request, err := json.Marshal(map[string]any{"method": "SUBSCRIBE", "params": streams, "id": 1})
	if err != nil {
		return err
	}
	if err := connection.Write(ctx, websocket.MessageText, request); err != nil {
		return err
	}
	for {
		_, payload, err := connection.Read(ctx)
		if err != nil {
			return err
		}
		if bytes.HasPrefix(payload, []byte(`{"result"`)) {
			continue
		}
		now := time.Now().UnixMicro()
		var message envelope
		if err := json.Unmarshal(payload, &message); err != nil {
			return err
		}
		channel, structure, symbol, value, err := convert(message.Stream, message.Data, now)
		if err != nil {
			return err
		}
		produce(ctx, client, "raw."+channel, symbol, payload)
		produce(ctx, client, "unified."+structure, symbol, value)
	}
}

func main() {
	servers := flag.String("bootstrap-servers", "", "")
	url := flag.String("url", "", "")
	symbols := flag.Int("symbols", 0, "")
	flag.Parse()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(*servers),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(100_000),
	)
	if err != nil {
		log.Fatal(err)
	}
	var names []string
	for number := range *symbols {
		for _, suffix := range suffixes {
			names = append(names, fmt.Sprintf("s%03dusdt%s", number, suffix))
		}
	}
	ended := make(chan error)
	for begin := 0; begin < len(names); begin += streamsPerConnection {
		mine := names[begin:min(begin+streamsPerConnection, len(names))]
		go func() { ended <- read(context.Background(), *url, mine, client) }()
	}
	log.Fatal(<-ended)
}
