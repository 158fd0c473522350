package c360bench;

import com.fasterxml.jackson.core.*;
import java.io.*;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.atomic.*;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.*;
import org.rocksdb.*;

/** The benchmark's workload (spec.md, version 2) on Kafka Streams: DSL plus one processor for dedup, RocksDB, caching, exactly_once_v2. */
public final class Main {
    static final JsonFactory JSON = new JsonFactory();

    /** Event: only the fields which the workload needs, read by the streaming parser; all other values are skipped. */
    static final class Event {
        String id, customer, type, email, sku; long ts; boolean hasTs; Boolean consent; double amount; byte[] raw;
    }

    static Event parse(byte[] v) {
        Event e = new Event();
        try (JsonParser p = JSON.createParser(v)) {
            if (p.nextToken() != JsonToken.START_OBJECT) return null;
            String f;
            while ((f = p.nextFieldName()) != null) {
                JsonToken t = p.nextToken();
                switch (f) {
                    case "event_id": if (t == JsonToken.VALUE_STRING) e.id = p.getText(); break;
                    case "customer_id": if (t == JsonToken.VALUE_STRING) e.customer = p.getText(); break;
                    case "type": if (t == JsonToken.VALUE_STRING) e.type = p.getText(); break;
                    case "ts": if (t == JsonToken.VALUE_NUMBER_INT) { e.ts = p.getLongValue(); e.hasTs = true; } break;
                    case "email": if (t == JsonToken.VALUE_STRING) e.email = p.getText(); break;
                    case "consent":
                        if (t == JsonToken.START_OBJECT) {
                            String g;
                            while ((g = p.nextFieldName()) != null) {
                                JsonToken u = p.nextToken();
                                if (g.equals("profiling") && u.isBoolean()) e.consent = p.getBooleanValue(); else p.skipChildren();
                            }
                        }
                        break;
                    case "props":
                        if (t == JsonToken.START_OBJECT) {
                            String g;
                            while ((g = p.nextFieldName()) != null) {
                                JsonToken u = p.nextToken();
                                if (g.equals("sku")) e.sku = p.getText();
                                else if (g.equals("amount")) e.amount = p.getDoubleValue();
                                else p.skipChildren();
                            }
                        }
                        break;
                    default: p.skipChildren();
                }
            }
            if (p.currentToken() != JsonToken.END_OBJECT) return null;
        } catch (IOException x) { return null; }
        return e.id == null || e.customer == null || e.type == null || !e.hasTs ? null : e;
    }

    /** State of a customer, in a compact binary form in the store. */
    static final class Profile {
        long events, revenue, first, last, emailTs, consentTs; int orders, topCount; boolean optedOut, chose; String topSku, email;
        final LinkedHashMap<String, Integer> skus = new LinkedHashMap<>();

        /** Order of arrival never matters: of one time, the choice to allow and the greatest email hold; of equal counts, the least sku. */
        void apply(Event e) {
            if (events == 0 || e.ts < first) first = e.ts;
            if (events == 0 || e.ts > last) last = e.ts;
            events++;
            if (e.consent != null && (!chose || e.ts > consentTs || (e.ts == consentTs && e.consent))) {
                optedOut = !e.consent; consentTs = e.ts; chose = true;
            }
            if (e.email != null && (email == null || e.ts > emailTs || (e.ts == emailTs && e.email.compareTo(email) > 0))) {
                email = e.email; emailTs = e.ts;
            }
            if (e.sku != null) {
                Integer c = skus.get(e.sku);
                int n = c != null ? c + 1 : 1;
                skus.put(e.sku, n);
                if (n > topCount || (n == topCount && e.sku.compareTo(topSku) < 0)) { topCount = n; topSku = e.sku; }
            }
            if (e.type.equals("order")) { orders++; revenue += (long) Math.floor(e.amount * 100 + 0.5); }
        }
    }

    static final class ProfileSerde implements Serde<Profile>, Serializer<Profile>, Deserializer<Profile> {
        private byte[] buf = new byte[4096];
        public Serializer<Profile> serializer() { return new ProfileSerde(); }
        public Deserializer<Profile> deserializer() { return new ProfileSerde(); }
        public void configure(Map<String, ?> c, boolean k) { }
        public void close() { }
        static void str(ByteBuffer b, String s) {
            if (s == null) { b.putShort((short) -1); return; }
            byte[] x = s.getBytes(StandardCharsets.UTF_8); b.putShort((short) x.length); b.put(x);
        }
        static String str(ByteBuffer b) {
            int n = b.getShort(); if (n < 0) return null;
            String s = new String(b.array(), b.arrayOffset() + b.position(), n, StandardCharsets.UTF_8); b.position(b.position() + n); return s;
        }
        public byte[] serialize(String topic, Profile p) {
            if (p == null) return null;
            ByteBuffer b = ByteBuffer.wrap(buf);
            b.putLong(p.events).putLong(p.revenue).putLong(p.first).putLong(p.last).putLong(p.emailTs).putLong(p.consentTs).putInt(p.orders).putInt(p.topCount);
            b.put((byte) ((p.optedOut ? 1 : 0) | (p.chose ? 2 : 0)));
            str(b, p.topSku); str(b, p.email); b.putShort((short) p.skus.size());
            for (Map.Entry<String, Integer> e : p.skus.entrySet()) { str(b, e.getKey()); b.putInt(e.getValue()); }
            return Arrays.copyOf(buf, b.position());
        }
        public Profile deserialize(String topic, byte[] v) {
            if (v == null) return null;
            ByteBuffer b = ByteBuffer.wrap(v); Profile p = new Profile();
            p.events = b.getLong(); p.revenue = b.getLong(); p.first = b.getLong(); p.last = b.getLong(); p.emailTs = b.getLong(); p.consentTs = b.getLong();
            p.orders = b.getInt(); p.topCount = b.getInt(); int f = b.get(); p.optedOut = (f & 1) != 0; p.chose = (f & 2) != 0;
            p.topSku = str(b); p.email = str(b);
            for (int i = b.getShort(); i > 0; i--) { String k = str(b); p.skus.put(k, b.getInt()); }
            return p;
        }
    }

    static byte[] render(String customer, Profile p) {
        ByteArrayOutputStream o = new ByteArrayOutputStream(256);
        try (JsonGenerator g = JSON.createGenerator(o)) {
            g.writeStartObject();
            g.writeStringField("customer_id", customer); g.writeNumberField("events", p.events); g.writeBooleanField("opted_out", p.optedOut);
            g.writeNumberField("orders", p.orders); g.writeNumberField("revenue_cents", p.revenue);
            g.writeNumberField("first_seen", p.first); g.writeNumberField("last_seen", p.last);
            g.writeNumberField("distinct_skus", p.skus.size()); g.writeStringField("top_sku", p.topSku); g.writeStringField("email", p.email);
            g.writeEndObject();
        } catch (IOException x) { throw new UncheckedIOException(x); }
        return o.toByteArray();
    }

    static byte[] idKey(String id) {
        try {
            UUID u = UUID.fromString(id);
            if (u.toString().equals(id)) return ByteBuffer.allocate(16).putLong(u.getMostSignificantBits()).putLong(u.getLeastSignificantBits()).array();
        } catch (IllegalArgumentException x) { /* not a canonical uuid: the text is the key */ }
        return id.getBytes(StandardCharsets.UTF_8);
    }

    /** Parse and deduplicate. Poison goes on as an Event which has only the raw bytes. */
    static final class Dedup implements FixedKeyProcessor<String, byte[], Event> {
        private FixedKeyProcessorContext<String, Event> ctx; private KeyValueStore<Bytes, byte[]> seen;
        private static final byte[] ONE = {1};
        public void init(FixedKeyProcessorContext<String, Event> c) { ctx = c; seen = c.getStateStore("seen"); }
        public void process(FixedKeyRecord<String, byte[]> r) {
            Event e = parse(r.value());
            if (e == null) e = new Event();
            else if (seen.putIfAbsent(Bytes.wrap(idKey(e.id)), ONE) != null) return;
            e.raw = r.value();
            ctx.forward(r.withValue(e));
        }
    }

    static String env(String k, String d) { String v = System.getenv(k); return v == null || v.isEmpty() ? d : v; }

    /** RocksDB tuning: point lookups with a full bloom filter, shared block cache, no WAL (Kafka Streams default). */
    public static final class Rocks implements RocksDBConfigSetter {
        private static final Cache CACHE = new LRUCache(128L << 20, -1, false, 0.1);
        public void setConfig(String store, org.rocksdb.Options o, Map<String, Object> cfg) {
            BlockBasedTableConfig b = (BlockBasedTableConfig) o.tableFormatConfig();
            b.setBlockCache(CACHE); b.setFilterPolicy(new BloomFilter(10, false)); b.setBlockSize(8 * 1024L);
            b.setCacheIndexAndFilterBlocks(true);
            o.setTableFormatConfig(b); o.setWriteBufferSize(32L << 20); o.setMaxWriteBufferNumber(3);
            o.setCompressionType(CompressionType.LZ4_COMPRESSION); o.setMemtablePrefixBloomSizeRatio(0.05); o.setMemtableWholeKeyFiltering(true);
        }
        public void close(String store, org.rocksdb.Options o) { }
    }

    static Topology topology(String in, String prefix) {
        StreamsBuilder sb = new StreamsBuilder();
        Map<String, String> none = Map.of();
        StoreBuilder<KeyValueStore<Bytes, byte[]>> seen = Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("seen"), Serdes.Bytes(), Serdes.ByteArray())
            .withLoggingEnabled(none);
        if (env("SEEN_CACHE", "false").equals("true")) seen = seen.withCachingEnabled(); else seen = seen.withCachingDisabled();
        sb.addStateStore(seen);
        Map<String, KStream<String, Event>> b = sb.stream(in, Consumed.with(Serdes.String(), Serdes.ByteArray()))
            .processValues(Dedup::new, "seen")
            .split(Named.as("b-")).branch((k, e) -> e.id == null, Branched.as("poison")).defaultBranch(Branched.as("ok"));
        b.get("b-poison").mapValues(e -> e.raw).to(prefix + "-dlq", Produced.with(Serdes.String(), Serdes.ByteArray()));
        KStream<String, Event> ok = b.get("b-ok");
        // A second hop through the broker, for latency beside c360, which has two.
        if (env("REPARTITION", "false").equals("true"))
            ok = ok.mapValues(e -> e.raw).repartition(Repartitioned.with(Serdes.String(), Serdes.ByteArray()).withName("hop")).mapValues(Main::parse);
        ok.groupByKey()
            .aggregate(Profile::new, (k, e, p) -> { p.apply(e); return p; },
                Materialized.<String, Profile, KeyValueStore<Bytes, byte[]>>as("profile").withKeySerde(Serdes.String()).withValueSerde(new ProfileSerde()).withCachingEnabled())
            .toStream().mapValues((k, p) -> render(k, p)).to(prefix + "-profiles", Produced.with(Serdes.String(), Serdes.ByteArray()));
        return sb.build();
    }

    public static void main(String[] a) throws Exception {
        String brokers = env("BROKERS", "127.0.0.1:9092"), in = env("INPUT", "events"), prefix = env("PREFIX", "ks");
        Properties p = new Properties();
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, prefix);
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        p.put(StreamsConfig.STATE_DIR_CONFIG, env("STATE_DIR", "state"));
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, env("THREADS", "1"));
        p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, env("COMMIT_MS", "100"));
        p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, env("CACHE_BYTES", "67108864"));
        p.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, Rocks.class);
        p.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.OPTIMIZE);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), "2000");
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MAX_BYTES_CONFIG), "52428800");
        p.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), env("LINGER_MS", "20"));
        p.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), "131072");
        p.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), env("COMPRESSION", "lz4"));
        p.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), "67108864");
        p.put("metrics.recording.level", "INFO");
        KafkaStreams ks = new KafkaStreams(topology(in, prefix), p);
        AtomicLong restored = new AtomicLong(), first = new AtomicLong(), last = new AtomicLong();
        ks.setGlobalStateRestoreListener(new StateRestoreListener() {
            public void onRestoreStart(TopicPartition t, String s, long b, long e) { first.compareAndSet(0, System.currentTimeMillis()); }
            public void onBatchRestored(TopicPartition t, String s, long b, long n) { }
            public void onRestoreEnd(TopicPartition t, String s, long n) { restored.addAndGet(n); last.set(System.currentTimeMillis()); }
        });
        long t0 = System.currentTimeMillis(); AtomicBoolean once = new AtomicBoolean();
        ks.setStateListener((n, o) -> {
            if (n == KafkaStreams.State.RUNNING && once.compareAndSet(false, true))
                System.out.printf(Locale.ROOT, "READY restored=%d secs=%.2f restore_secs=%.2f%n", restored.get(), (System.currentTimeMillis() - t0) / 1e3, (last.get() - first.get()) / 1e3);
            if (n == KafkaStreams.State.ERROR) { System.out.println("ERROR"); System.out.flush(); Runtime.getRuntime().halt(1); }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> ks.close(Duration.ofSeconds(20))));
        ks.start();
        Thread.currentThread().join();
    }
}
